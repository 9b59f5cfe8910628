"""openstacksdk's metadata definitions.  Run by its own Python: FUNCTION URL."""

import sys

import openstack
from openstack import exceptions

ALL = ("namespace", "object", "property", "tag", "resource_type")


def everything(url: str) -> None:
    """Each call of the SDK about metadata definitions."""
    cloud = openstack.connect(auth_type="none", image_endpoint_override=url)
    image = cloud.image
    name = "OS::SDK::Test"
    made = image.create_metadef_namespace(
        namespace=name, visibility="public", display_name="SDK", is_protected=False
    )
    assert (made.namespace, made.visibility, made.is_protected) == (name, "public", False)
    assert image.get_metadef_namespace(name).display_name == "SDK"
    assert name in {each.namespace for each in image.metadef_namespaces(limit=1)}
    assert name in {each.namespace for each in image.metadef_namespaces(visibility="public")}
    changed = image.update_metadef_namespace(made, description="changed", visibility="private")
    assert (changed.description, changed.visibility) == ("changed", "private")

    _properties(image, name)
    _objects(image, name)
    _tags(image, made)
    _resource_types(image, name)
    _schemas(image)

    image.delete_metadef_namespace(name)
    try:
        image.get_metadef_namespace(name)
    except exceptions.NotFoundException:
        cloud.close()
        return
    raise AssertionError("a deleted namespace was found")


def _properties(image, name):
    bus = image.create_metadef_property(
        name, name="bus", type="string", title="Bus", enum=["virtio"], default="virtio"
    )
    assert (bus.name, bus.enum, bus.default) == ("bus", ["virtio"], "virtio")
    changed = image.update_metadef_property(bus, name, name="bus", title="New", type="string")
    assert changed.title == "New"
    assert image.get_metadef_property("bus", name).title == "New"
    assert [each.name for each in image.metadef_properties(name)] == ["bus"]
    image.create_metadef_property(name, name="count", type="integer", title="Count", minimum=1)
    image.delete_metadef_property("bus", name, ignore_missing=False)
    image.delete_all_metadef_properties(name)
    assert list(image.metadef_properties(name)) == []


def _objects(image, name):
    cpu = image.create_metadef_object(
        name,
        name="cpu",
        description="d",
        required=["cores"],
        properties={"cores": {"title": "Cores", "type": "integer"}},
    )
    assert cpu.required == ["cores"]
    for other in ("disk", "memory"):
        image.create_metadef_object(name, name=other)
    assert image.get_metadef_object("cpu", name).description == "d"
    assert [each.name for each in image.metadef_objects(name)] == ["cpu", "disk", "memory"]
    changed = image.update_metadef_object("cpu", name, name="processor", description="e")
    assert (changed.name, changed.description) == ("processor", "e")
    image.delete_metadef_object("processor", name, ignore_missing=False)
    image.delete_all_metadef_objects(name)
    assert list(image.metadef_objects(name)) == []


def _tags(image, namespace):
    image.add_tag_to_metadef_namespace(namespace, "one")
    namespace.set_tags(image, ["two", "three"])
    namespace.set_tags(image, ["four"], append=True)
    found = image.get(f"/metadefs/namespaces/{namespace.namespace}/tags?sort_key=name").json()
    assert [each["name"] for each in found["tags"]] == ["two", "three", "four"], found
    image.remove_tag_from_metadef_namespace(namespace, "two")
    image.remove_tags_from_metadef_namespace(namespace)


def _resource_types(image, name):
    made = image.create_metadef_resource_type_association(
        name, name="OS::SDK::Type", prefix="sdk_", properties_target="image"
    )
    assert (made.name, made.prefix) == ("OS::SDK::Type", "sdk_")
    assert "OS::SDK::Type" in {each.name for each in image.metadef_resource_types()}
    found = image.metadef_resource_type_associations(name)
    assert [(each.name, each.prefix) for each in found] == [("OS::SDK::Type", "sdk_")]
    image.delete_metadef_resource_type_association("OS::SDK::Type", name, ignore_missing=False)


def _schemas(image):
    for noun in ALL:
        for form in (noun, "properties" if noun == "property" else f"{noun}s"):
            found = getattr(image, f"get_metadef_{form}_schema")()
            assert found.properties, form


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
