"""What can be done with metadata definitions: namespaces, what is in them, resource types.

Who may do what service/policy.py decides.  Who may write but not see is told that there is nothing,
who may see but not write that he may not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from headrace import errors
from headrace.db import definitions, metadefs, resource_types
from headrace.db.engine import Database
from headrace.db.metadef_rows import AnyPart, Part
from headrace.model import (
    Association,
    MetadefObject,
    MetadefProperty,
    MetadefTag,
    Namespace,
    NamespaceQuery,
    Paging,
    ResourceType,
)
from headrace.service import policy
from headrace.service.context import Context
from headrace.service.policy import MetadefRule

NOBODY = "admin"
"""Who owns a namespace that nobody's project made: the owner that Glance's loader writes."""

_GET: dict[type[Part], MetadefRule] = {
    MetadefObject: MetadefRule.GET_OBJECT,
    MetadefProperty: MetadefRule.GET_PROPERTY,
    MetadefTag: MetadefRule.GET_TAG,
}
_LIST: dict[type[Part], MetadefRule] = {
    MetadefObject: MetadefRule.GET_OBJECTS,
    MetadefProperty: MetadefRule.GET_PROPERTIES,
    MetadefTag: MetadefRule.GET_TAGS,
}
_ADD: dict[type[Part], MetadefRule] = {
    MetadefObject: MetadefRule.ADD_OBJECT,
    MetadefProperty: MetadefRule.ADD_PROPERTY,
    MetadefTag: MetadefRule.ADD_TAG,
}
_MODIFY: dict[type[Part], MetadefRule] = {
    MetadefObject: MetadefRule.MODIFY_OBJECT,
    MetadefProperty: MetadefRule.MODIFY_PROPERTY,
    MetadefTag: MetadefRule.MODIFY_TAG,
}
_DELETE: dict[type[Part], MetadefRule] = {
    MetadefObject: MetadefRule.DELETE_OBJECT,
    MetadefProperty: MetadefRule.REMOVE_PROPERTY,
    MetadefTag: MetadefRule.DELETE_TAG,
}
# To empty a namespace takes what deleting it takes; tags have a rule besides.
_DELETE_ALL: dict[type[Part], tuple[MetadefRule, ...]] = {
    MetadefObject: (MetadefRule.DELETE_NAMESPACE,),
    MetadefProperty: (MetadefRule.DELETE_NAMESPACE,),
    MetadefTag: (MetadefRule.DELETE_NAMESPACE, MetadefRule.DELETE_TAGS),
}


class Metadefs:
    """The definitions in one database."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self.now = clock

    def list_namespaces(self, context: Context, query: NamespaceQuery) -> list[Namespace]:
        """A page of the namespaces that the caller sees.

        Raises Forbidden, and NamespaceNotFound for a marker.
        """
        policy.require(context, MetadefRule.GET_NAMESPACES)
        limit, kept = query.paging.limit, list[Namespace]()
        while True:
            page = metadefs.list_namespaces(self._database, query, context.viewer)
            kept += [x for x in page if policy.allows(context, MetadefRule.GET_NAMESPACE, x)]
            if limit is None or len(page) < limit or len(kept) >= limit:
                return kept[:limit]
            query = replace(query, paging=replace(query.paging, marker=page[-1].namespace))

    def show_namespace(
        self, context: Context, name: str, resource_type: str | None = None
    ) -> Namespace:
        """The namespace with all that is in it; raises NamespaceNotFound.

        With a resource type that it is associated with, properties have the names they have there.
        """
        found = metadefs.show(self._database, name, context.viewer)
        policy.require_of_namespace(context, MetadefRule.GET_NAMESPACE, found)
        prefix = next(
            (each.prefix for each in found.associations if each.name == resource_type), ""
        )
        return _prefixed(found, prefix) if prefix else found

    def create_namespace(self, context: Context, namespace: Namespace) -> Namespace:
        """Record a namespace with all that is in it, or nothing; raises *Exists, Forbidden."""
        policy.require(context, MetadefRule.ADD_NAMESPACE)
        for rule, content in (
            (MetadefRule.ADD_ASSOCIATION, namespace.associations),
            (MetadefRule.ADD_OBJECT, namespace.objects),
            (MetadefRule.ADD_PROPERTY, namespace.properties),
            (MetadefRule.ADD_TAG, namespace.tags),
        ):
            if content:
                policy.require(context, rule)
        metadefs.create(self._database, namespace)
        return namespace

    def update_namespace(self, context: Context, name: str, namespace: Namespace) -> Namespace:
        """Give a namespace the name and attributes of another; what is in it stays.

        Raises NamespaceNotFound, NamespaceExists, Forbidden.
        """
        self._permit(context, name, MetadefRule.MODIFY_NAMESPACE)
        return metadefs.update(self._database, name, namespace, context.viewer)

    def delete_namespace(self, context: Context, name: str) -> None:
        """Delete a namespace and all that is in it.

        Raises NamespaceNotFound, NamespaceProtected, Forbidden.
        """
        self._permit(context, name, MetadefRule.DELETE_NAMESPACE)
        metadefs.delete(self._database, name, context.viewer)

    def list_parts(
        self, context: Context, kind: type[AnyPart], namespace: str, paging: Paging
    ) -> list[AnyPart]:
        """A page of a namespace's properties, objects or tags.

        Raises NamespaceNotFound, Forbidden, and DefinitionNotFound for a marker.
        """
        self._permit(context, namespace, _LIST[kind])
        return definitions.list_parts(self._database, kind, namespace, context.viewer, paging)

    def show_part(
        self, context: Context, kind: type[AnyPart], namespace: str, name: str
    ) -> AnyPart:
        """One of them; raises NamespaceNotFound, Forbidden, DefinitionNotFound."""
        self._permit(context, namespace, _GET[kind])
        return definitions.show(self._database, kind, namespace, name, context.viewer)

    def show_prefixed_property(
        self, context: Context, namespace: str, name: str, resource_type: str
    ) -> MetadefProperty:
        """The property that has this name where it belongs to resources of a type.

        Raises NamespaceNotFound, Forbidden, DefinitionNotFound.
        """
        self._permit(context, namespace, MetadefRule.GET_PROPERTY)
        associations = resource_types.list_associations(self._database, namespace, context.viewer)
        prefix = _prefix(associations, resource_type)
        if not prefix or not name.startswith(prefix):
            raise errors.DefinitionNotFound(namespace=namespace, kind="property", name=name)
        return self.show_part(context, MetadefProperty, namespace, name.removeprefix(prefix))

    def create_part(self, context: Context, namespace: str, part: Part) -> None:
        """Add a property, object or tag; raises NamespaceNotFound, DefinitionExists, Forbidden."""
        self._permit(context, namespace, _ADD[type(part)])
        definitions.create(self._database, namespace, part, context.viewer)

    def update_part(self, context: Context, namespace: str, name: str, part: AnyPart) -> AnyPart:
        """Put a part in the place of another of its kind; the part as stored.

        Raises NamespaceNotFound, DefinitionNotFound, DefinitionExists, Forbidden.
        """
        self._permit(context, namespace, _MODIFY[type(part)])
        return definitions.update(self._database, namespace, name, part, context.viewer)

    def delete_part(self, context: Context, kind: type[Part], namespace: str, name: str) -> None:
        """Raises NamespaceNotFound, DefinitionNotFound, NamespaceProtected, Forbidden."""
        self._permit(context, namespace, _DELETE[kind])
        definitions.delete(self._database, kind, namespace, name, context.viewer)

    def delete_parts(self, context: Context, kind: type[Part], namespace: str) -> None:
        """Delete all of a kind; raises NamespaceNotFound, NamespaceProtected, Forbidden."""
        self._permit(context, namespace, *_DELETE_ALL[kind])
        definitions.delete_all(self._database, kind, namespace, context.viewer)

    def set_tags(
        self, context: Context, namespace: str, tags: Sequence[MetadefTag], *, append: bool
    ) -> None:
        """Give a namespace these tags, beside or instead of those it has.

        Raises NamespaceNotFound, NamespaceProtected (a tag would go), DefinitionExists, Forbidden.
        """
        self._permit(context, namespace, MetadefRule.ADD_TAGS)
        definitions.set_tags(self._database, namespace, tags, context.viewer, append=append)

    def list_resource_types(self, context: Context) -> list[ResourceType]:
        """All resource types that any namespace was ever about; raises Forbidden."""
        policy.require(context, MetadefRule.LIST_RESOURCE_TYPES)
        return resource_types.list_types(self._database)

    def list_associations(self, context: Context, namespace: str) -> list[Association]:
        """Which resource types a namespace is about; raises NamespaceNotFound, Forbidden."""
        self._permit(context, namespace, MetadefRule.GET_RESOURCE_TYPE)
        return resource_types.list_associations(self._database, namespace, context.viewer)

    def associate(self, context: Context, namespace: str, association: Association) -> None:
        """Raises NamespaceNotFound, DefinitionExists, Forbidden."""
        self._permit(context, namespace, MetadefRule.ADD_ASSOCIATION)
        resource_types.associate(self._database, namespace, association, context.viewer)

    def dissociate(self, context: Context, namespace: str, resource_type: str) -> None:
        """Raises NamespaceNotFound, DefinitionNotFound, NamespaceProtected, Forbidden."""
        self._permit(context, namespace, MetadefRule.REMOVE_ASSOCIATION)
        resource_types.dissociate(self._database, namespace, resource_type, context.viewer)

    def _permit(self, context: Context, namespace: str, *rules: MetadefRule) -> None:
        """Refuse what the rules do; of a namespace that the caller does not see, its being there.

        Raises Forbidden, NamespaceNotFound.
        """
        found = metadefs.find(self._database, namespace, context.viewer)
        for rule in rules:
            policy.require_of_namespace(context, rule, found)


def _prefix(associations: Iterable[Association], resource_type: str | None) -> str | None:
    return next((each.prefix for each in associations if each.name == resource_type), None)


def _prefixed(namespace: Namespace, prefix: str) -> Namespace:
    return replace(
        namespace,
        properties=tuple(replace(each, name=prefix + each.name) for each in namespace.properties),
        objects=tuple(
            replace(
                each,
                required=tuple(prefix + name for name in each.required),
                properties={prefix + name: value for name, value in each.properties.items()},
            )
            for each in namespace.objects
        ),
    )
