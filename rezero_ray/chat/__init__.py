"""From what an environment says to the ids that the policy sees, with nothing lost, added or re-tokenised.

messages        what an environment, a tool or a data set says, as a chat template reads it
conversation    which earlier model call a list of messages continues
control_tokens  the template's control tokens, and the same spelled out in somebody's text
tokenizer       a model's chat template: messages to ids
"""

from rezero_ray.chat.conversation import Call, Conversation
from rezero_ray.chat.messages import (
    Message,
    MessageRefused,
    call_record,
    clean_arguments,
    clean_text,
    policy_messages,
    policy_tools,
    shown_text,
    template_messages,
    tool_record,
    unencodable,
)
from rezero_ray.chat.tokenizer import ChatTokenizer

__all__ = [
    "Call",
    "ChatTokenizer",
    "Conversation",
    "Message",
    "MessageRefused",
    "call_record",
    "clean_arguments",
    "clean_text",
    "policy_messages",
    "policy_tools",
    "shown_text",
    "template_messages",
    "tool_record",
    "unencodable",
]
