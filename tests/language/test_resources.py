"""What a Resource names, in the engine's own spelling and as existing definitions write it."""

from __future__ import annotations

import pytest

from daemon.language import BadResource, ResourceKind, parse_resource

NODE, ACTIVITY, WORKFLOW, SIGNAL = ResourceKind


@pytest.mark.parametrize(
    ("text", "kind", "name", "queue", "arn"),
    [
        ("http", NODE, "http", "http", False),
        ("echo", NODE, "echo", "echo", False),
        ("ai:openai", NODE, "ai:openai", "ai:openai", False),
        ("code:python", NODE, "code:python", "code:python", False),
        ("pdf:render", NODE, "pdf:render", "pdf:render", False),
        ("activity:pack", ACTIVITY, "pack", "pack", False),
        ("activity:team/pack", ACTIVITY, "team/pack", "team/pack", False),
        ("workflow:billing", WORKFLOW, "billing", "billing", False),
        ("signal:approved", SIGNAL, "approved", "approved", False),
        ("arn:aws:states:::http:invoke", NODE, "http", "http", True),
        ("arn:aws:states:us-east-1:123456789012:activity:HelloWorld", ACTIVITY, "HelloWorld", "HelloWorld", True),
        ("arn:aws:states:us-east-1:123456789012:task:X", ACTIVITY, "X", "X", True),
        ("arn:aws:swf:::task:Add", ACTIVITY, "Add", "Add", True),
        ("arn:aws:lambda:us-east-1:123456789012:function:Add", ACTIVITY, "Add", "Add", True),
        ("arn:aws-cn:lambda:cn-north-1:123456789012:function:Add:$LATEST", ACTIVITY, "Add", "Add", True),
        ("arn:aws:states:::sqs:sendMessage", ACTIVITY, "sqs:sendMessage", "sqs:sendMessage", True),
        ("arn:aws:states:::batch:submitJob.sync", ACTIVITY, "batch:submitJob.sync", "batch:submitJob.sync", True),
        ("arn:aws:states:::aws-sdk:s3:getObject", ACTIVITY, "aws-sdk:s3:getObject", "aws-sdk:s3:getObject", True),
        ("arn:aws:states:::states:startExecution", WORKFLOW, "", "", True),
        ("arn:aws:states:::lambda:invoke", ACTIVITY, "", "", True),
    ],
)
def test_what_a_resource_names(text: str, kind: ResourceKind, name: str, queue: str, arn: bool) -> None:
    for token in (False, True):
        written = text + ".waitForTaskToken" * token
        resource = parse_resource(written)
        assert (resource.kind, resource.name, resource.queue, resource.arn) == (kind, name, queue, arn)
        assert (resource.text, resource.wait_for_token) == (written, token)
        assert resource.lambda_invoke == (text == "arn:aws:states:::lambda:invoke")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '"" is neither an ARN nor a name like "http", "activity:NAME" or "ai:openai"'),
        ("two words", '"two words" is neither an ARN nor a name like "http", "activity:NAME" or "ai:openai"'),
        ("activity:", '"activity:" needs a name after "activity:" (letters, digits and _ . : / -)'),
        ("signal:a b", '"signal:a b" needs a name after "signal:" (letters, digits and _ . : / -)'),
        ("arn:aws:lambda", '"arn:aws:lambda" is not a whole ARN (arn:aws:SERVICE:REGION:ACCOUNT:WHAT)'),
        ("arn:aws:states:::sqs", '"arn:aws:states:::sqs" is not of the form arn:aws:states:::SERVICE:ACTION'),
        (
            "arn:aws:sns:us-east-1:1:topic",
            '"arn:aws:sns:us-east-1:1:topic" is not an ARN a task can run: an activity, a Lambda function, or '
            "arn:aws:states:::SERVICE:ACTION",
        ),
        ("arn:aws:lambda:r:1:function:", '"arn:aws:lambda:r:1:function:" does not name a Lambda function'),
    ],
)
def test_what_names_nothing(text: str, message: str) -> None:
    with pytest.raises(BadResource) as raised:
        parse_resource(text)
    assert str(raised.value) == message
