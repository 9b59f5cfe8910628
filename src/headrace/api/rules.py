"""The usual rules in oslo.policy's language: the names and the defaults of Glance 33.

service/policy.py decides by them without asking oslo.policy.  Here they are what an operator's
rules may refer to, what `headrace policy` shows, and what a test holds the decisions against.
"""

from dataclasses import dataclass

_ADMIN = "rule:context_is_admin"
_OWN = "project_id:%(project_id)s"
_MEMBER = f"{_ADMIN} or (role:member and {_OWN})"
_READER = f"{_ADMIN} or (role:reader and {_OWN})"
_CREATOR = f"(role:member and {_OWN} and project_id:%(owner)s)"
_SEEN = (
    f"({_OWN} or project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s"
    " or 'shared':%(visibility)s)"
)
_SHARED = f"({_OWN} or project_id:%(member_id)s)"
_READ_METADEF = f"{_ADMIN} or (role:reader and ({_OWN} or 'public':%(visibility)s))"
_ANYBODY = "rule:default"


@dataclass(frozen=True, slots=True)
class Rule:
    """``check`` is the rule, ``old`` what passed besides before rules looked at projects
    (``enforce_new_defaults = false``), if anything did; ``asked`` is False where nothing asks."""

    name: str
    check: str
    meaning: str
    old: str | None = None
    asked: bool = True


def _metadefs() -> list[Rule]:
    old = "rule:metadef_default"
    read = {
        "get_metadef_namespace": "show a namespace of definitions, and find it in lists",
        "get_metadef_object": "show an object of a namespace",
        "get_metadef_objects": "list the objects of a namespace",
        "get_metadef_property": "show a property of a namespace",
        "get_metadef_properties": "list the properties of a namespace",
        "get_metadef_tag": "show a tag of a namespace",
        "get_metadef_tags": "list the tags of a namespace",
        "get_metadef_resource_type": "list the resource types that a namespace is about",
        "list_metadef_resource_types": "list all resource types",
    }
    write = {
        "add_metadef_namespace": "create a namespace",
        "modify_metadef_namespace": "change a namespace",
        "delete_metadef_namespace": "delete a namespace, or all of a kind in it",
        "add_metadef_object": "add an object to a namespace",
        "modify_metadef_object": "change an object",
        "delete_metadef_object": "delete an object",
        "add_metadef_property": "add a property to a namespace",
        "modify_metadef_property": "change a property",
        "remove_metadef_property": "delete a property",
        "add_metadef_tag": "add a tag to a namespace",
        "add_metadef_tags": "give a namespace several tags",
        "modify_metadef_tag": "change a tag",
        "delete_metadef_tag": "delete a tag",
        "delete_metadef_tags": "delete all tags of a namespace",
        "add_metadef_resource_type_association": "say which resource type a namespace is about",
        "remove_metadef_resource_type_association": "take that back",
    }
    return [
        Rule("metadef_default", "", "what old rules of definitions refer to", asked=False),
        Rule("metadef_admin", _ADMIN, "what the rules of changes refer to", asked=False),
        Rule("get_metadef_namespaces", _READER, "list the namespaces of definitions", old),
        *(Rule(name, _READ_METADEF, meaning, old) for name, meaning in read.items()),
        *(Rule(name, "rule:metadef_admin", meaning) for name, meaning in write.items()),
    ]


def _cache() -> list[Rule]:
    old = "rule:manage_image_cache"
    return [
        Rule("manage_image_cache", _ADMIN, "use /v2/cached_images and /v2/queued_images"),
        Rule("cache_image", _ADMIN, "queue an image for the cache", old),
        Rule("cache_list", _ADMIN, "list what is cached and queued", old),
        Rule("cache_delete", _ADMIN, "remove images from the cache and its queue", old),
        Rule("cache_clean", _ADMIN, "remove from the cache what is of no use"),
        Rule("cache_prune", _ADMIN, "make the cache fit its size"),
        Rule("list_cached_nodes", _ADMIN, "ask which nodes have cached an image"),
    ]


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("default", "", "what rules say that are not listed", _ADMIN, asked=False),
        Rule("context_is_admin", "role:admin", "be an administrator"),
        Rule(
            "service_api",
            "role:service or role:admin",
            "what the rules of locations refer to",
            asked=False,
        ),
        Rule("add_image", f"{_ADMIN} or {_CREATOR}", "create an image", _ANYBODY),
        Rule("get_images", _READER, "list images", _ANYBODY),
        Rule(
            "get_image",
            f"{_ADMIN} or (role:reader and {_SEEN})",
            "show an image, find it in lists, and see its tasks",
            _ANYBODY,
        ),
        Rule(
            "modify_image",
            _MEMBER,
            "change an image, tag it, stage and import its data",
            _ANYBODY,
        ),
        Rule("delete_image", _MEMBER, "delete an image", _ANYBODY),
        Rule("publicize_image", _ADMIN, "make an image public"),
        Rule("communitize_image", _MEMBER, "make an image a community's", _ANYBODY),
        Rule(
            "download_image",
            f"{_ADMIN} or (role:member and {_SEEN})",
            "download an image's data",
            _ANYBODY,
        ),
        Rule(
            "download_from_store",
            f"{_ADMIN} or (role:member and {_SEEN})",
            "say from which store (prefer=)",
        ),
        Rule("upload_image", _MEMBER, "upload an image's data", _ANYBODY),
        Rule(
            "get_image_location",
            _READER,
            "with delete_image_location: delete an image's data from a store",
            _ANYBODY,
        ),
        Rule(
            "set_image_location",
            _MEMBER,
            "change an image's locations by PATCH",
            _ANYBODY,
        ),
        Rule("delete_image_location", _ADMIN, "delete an image's data from a store", _ANYBODY),
        Rule(
            "add_image_location",
            f"rule:service_api or {_CREATOR}",
            "give an image its data by naming where it lies",
        ),
        Rule("fetch_image_location", "rule:service_api", "list where an image's data lies"),
        Rule("copy_image", _ADMIN, "copy an image's data to other stores (copy-image)"),
        Rule("deactivate", _MEMBER, "take an image out of use", _ANYBODY),
        Rule("reactivate", _MEMBER, "put an image to use again", _ANYBODY),
        Rule("add_member", _MEMBER, "share an image with a project", _ANYBODY),
        Rule("delete_member", _MEMBER, "stop sharing an image", _ANYBODY),
        Rule("get_member", f"{_ADMIN} or role:reader and {_SHARED}", "show a member", _ANYBODY),
        Rule("get_members", f"{_ADMIN} or role:reader and {_SHARED}", "list members", _ANYBODY),
        Rule(
            "modify_member",
            f"{_ADMIN} or (role:member and project_id:%(member_id)s)",
            "accept or reject what is shared with one's project",
            _ANYBODY,
        ),
        Rule("stores_info_detail", f"{_ADMIN} or rule:service_api", "show all of the stores",
             _ADMIN),
        Rule("tasks_api_access", _ADMIN, "use /v2/tasks"),
        Rule("get_task", _ANYBODY, "nothing: see tasks_api_access", _ANYBODY, asked=False),
        Rule("get_tasks", _ANYBODY, "nothing: see tasks_api_access", _ANYBODY, asked=False),
        Rule("add_task", _ANYBODY, "nothing: see tasks_api_access", _ANYBODY, asked=False),
        Rule("modify_task", _ANYBODY, "nothing: see tasks_api_access", asked=False),
        *_metadefs(),
        *_cache(),
    )
}  # fmt: skip
