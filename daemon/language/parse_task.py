"""Reading what is a Task's alone: its resource, the function that a lambda:invoke names, and what a node type has to
say of its arguments."""

from __future__ import annotations

import msgspec

from daemon.language.child import FIELDS as START_FIELDS
from daemon.language.child import machine_name
from daemon.language.fields import Fields
from daemon.language.literal import literal_part
from daemon.language.query import is_query
from daemon.language.resource import (
    BadResource,
    ClosePolicy,
    ExecutionMode,
    Resource,
    ResourceKind,
    function_name,
    parse_resource,
)


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
    _check_beside(fields, resource)
    if resource.execution is not None and resource.arn:
        return _started(fields, resource)
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


def _check_beside(fields: Fields, resource: Resource) -> None:
    """Fields that go with some resources only."""
    if resource.kind in (ResourceKind.WORKFLOW, ResourceKind.SIGNAL):
        for name in ("TaskQueue", "Priority", "ScheduleToStartSeconds"):
            if name in fields:
                fields.fault(name, "has no meaning here: no worker runs this task")
        if not resource.wait_for_token and not resource.arn:
            for name in ("HeartbeatSeconds", "HeartbeatSecondsPath"):
                if name in fields:
                    fields.fault(name, "has no meaning here: nobody sends heartbeats for this task; use TimeoutSeconds")
    if "ParentClosePolicy" in fields and (
        resource.execution in (None, ExecutionMode.START) or resource.kind is not ResourceKind.WORKFLOW
    ):
        fields.fault("ParentClosePolicy", "goes with a child execution that is waited for")


def close_policy(fields: Fields) -> ClosePolicy:
    """ParentClosePolicy: what becomes of the child when nobody waits for it any more."""
    text = fields.text("ParentClosePolicy")
    if text is None:
        return ClosePolicy.CANCEL
    try:
        return ClosePolicy(text)
    except ValueError:
        known = [policy.value for policy in ClosePolicy]
        fields.fault("ParentClosePolicy", f"must be one of {', '.join(known)}{fields.findings.suggest(text, known)}")
        return ClosePolicy.CANCEL


def _started(fields: Fields, resource: Resource) -> Resource | None:
    """What can be known of startExecution's arguments before it runs."""
    field = "Arguments" if fields.jsonata else "Parameters"
    given = fields.values.get(field)
    if fields.jsonata and isinstance(given, str):
        return resource
    if not isinstance(given, dict) or not ("StateMachineArn" in given or "StateMachineArn.$" in given):
        if field not in fields or isinstance(given, dict) or fields.jsonata:
            fields.fault(field, "startExecution needs StateMachineArn, the workflow to start")
        return None
    for name in given:
        if name.removesuffix(".$") not in START_FIELDS:
            fields.fault(
                f"{field}.{name}", f"startExecution has no such field{fields.findings.suggest(name, START_FIELDS)}"
            )
    written = given.get("StateMachineArn", "")
    if "StateMachineArn" in given and not (fields.jsonata and isinstance(written, str) and is_query(written)):
        machine = machine_name(written) if isinstance(written, str) else None
        if machine is None:
            fields.fault(f"{field}.StateMachineArn", "does not name a workflow")
            return None
        return msgspec.structs.replace(resource, name=machine[0])
    return resource


def check_arguments(fields: Fields, resource: Resource) -> None:
    """Report what the node type has against its arguments, as far as they are in the definition."""
    check = fields.findings.check
    field = "Arguments" if fields.jsonata else "Parameters"
    if check is None or resource.kind is not ResourceKind.NODE or field not in fields:
        return
    given = fields.values[field]
    if isinstance(given, dict) or fields.jsonata:
        for fault in check(resource.name, literal_part(given, fields.jsonata)):
            fields.fault(f"{field}.{fault.path}" if fault.path else field, fault.message)


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
