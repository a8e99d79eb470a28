"""Reading what is a Task's alone: its resource, and the function that a lambda:invoke names."""

from __future__ import annotations

import msgspec

from daemon.language.fields import Fields
from daemon.language.query import is_query
from daemon.language.resource import BadResource, Resource, ResourceKind, function_name, parse_resource


def parse_resource_field(fields: Fields) -> Resource | None:
    """Resource; None when it was reported. A lambda:invoke gets its function's name, where the definition tells it."""
    text = fields.text("Resource")
    if text is None:
        if "Resource" not in fields:
            fields.findings.fault(fields.where, "needs a Resource, which names what runs the task")
        return None
    try:
        resource = parse_resource(text)
    except BadResource as error:
        fields.fault("Resource", str(error))
        return None
    if resource.kind is ResourceKind.WORKFLOW:
        fields.fault("Resource", "child workflows are not available in this version")
        return None
    if resource.kind is ResourceKind.SIGNAL:
        fields.fault("Resource", "signals are not available in this version")
        return None
    if resource.lambda_invoke:
        return _invoked(fields, resource)
    if resource.integration:
        fields.findings.warn(
            fields.path("Resource"),
            f'this integration is not built in: its tasks wait in task queue "{resource.queue}" for a worker',
        )
    installed = fields.findings.node_types
    if resource.kind is ResourceKind.NODE and installed is not None and resource.name not in installed:
        hint = fields.findings.suggest(resource.name, [*sorted(installed), "activity:NAME"])
        fields.fault("Resource", f'no node type "{resource.name}" is installed{hint}')
        return None
    return resource


def _invoked(fields: Fields, resource: Resource) -> Resource | None:
    field = "Arguments" if fields.jsonata else "Parameters"
    given = fields.values.get(field)
    if fields.jsonata and isinstance(given, str):
        return resource
    if not isinstance(given, dict) or not ("FunctionName" in given or "FunctionName.$" in given):
        if field not in fields or isinstance(given, dict) or fields.jsonata:
            fields.fault(field, "lambda:invoke needs FunctionName, the function to run")
        return None
    if "FunctionName" not in given:
        return resource
    written = given["FunctionName"]
    if fields.jsonata and isinstance(written, str) and is_query(written):
        return resource
    name = function_name(written) if isinstance(written, str) else None
    if name is None:
        fields.fault(f"{field}.FunctionName", "does not name a Lambda function")
        return None
    return msgspec.structs.replace(resource, name=name, queue=name)
