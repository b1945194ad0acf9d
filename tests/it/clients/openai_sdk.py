"""Asks an ensemble as a user of OpenAI's SDK would: openai_sdk.py GROUP BASE_URL. Prints what came as JSON."""

import asyncio
import json
import sys

import openai

ALIAS = "research-ensemble"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def question(text="why?", **more):
    return {"model": ALIAS, "messages": [{"role": "user", "content": text}], **more}


def whole(completion):
    return completion.model_dump(mode="json")


def joined(chunks):
    """What a client makes of a stream by hand."""
    said = {"model": {c.model for c in chunks}.pop(), "ids": len({c.id for c in chunks}), "calls": {}}
    choices = [choice for c in chunks for choice in c.choices]
    said["roles"] = [choice.delta.role for choice in choices if choice.delta.role]
    said["contents"] = [choice.delta.content for choice in choices if choice.delta.content]
    said["finish"] = [choice.finish_reason for choice in choices]
    said["usages"] = [c.usage.model_dump(mode="json", exclude_none=True) if c.usage else None for c in chunks]
    said["last_choices"] = len(chunks[-1].choices)
    for piece in (piece for choice in choices for piece in choice.delta.tool_calls or []):
        call = said["calls"].setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
        call["id"] += piece.id or ""
        call["name"] += piece.function.name or ""
        call["arguments"] += piece.function.arguments or ""
    said["calls"] = list(said["calls"].values())
    return said


def helped(client, **asked):
    with client.chat.completions.stream(**asked) as stream:
        kinds = sorted({event.type for event in stream})
        return {"kinds": kinds, "completion": whole(stream.get_final_completion())}


async def asynchronously(url):
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-of-the-caller") as client:
        plain = await client.chat.completions.create(**question())
        stream = await client.chat.completions.create(**question(stream=True))
        return {"plain": whole(plain), "stream": joined([chunk async for chunk in stream])}


def answers(client, url):
    ask = client.chat.completions.create
    usage = {"stream_options": {"include_usage": True}}
    return {
        "plain": whole(ask(**question())),
        "stream": joined(list(ask(**question(stream=True)))),
        "with_usage": joined(list(ask(**question(stream=True, **usage)))),
        "helper": helped(client, **question(**usage)),
        "slowly": joined(list(ask(**question("slowly", stream=True)))),
        "async": asyncio.run(asynchronously(url)),
    }


def tools(client, _url):
    asked = question(tools=[TOOL])
    return {
        "plain": whole(client.chat.completions.create(**asked)),
        "stream": joined(list(client.chat.completions.create(stream=True, **asked))),
        "helper": helped(client, **asked),
    }


def selected(client, _url):
    def ask(text, **more):
        asked = question(text, tools=[TOOL], **more)
        stream = list(client.chat.completions.create(stream=True, **asked))
        return {"stream": joined(stream), "helper": helped(client, **asked)["completion"]}

    return {"long": ask("long"), "tools": ask("tools"), "logprobs": ask("logprobs", logprobs=True)}


def caught(call):
    try:
        return {"answer": whole(call())}
    except openai.APIError as error:
        kind, status = type(error).__name__, getattr(error, "status_code", None)
        return {"kind": kind, "status": status, "code": error.code, "param": error.param, "type": error.type}


def broken_off(client):
    contents = []

    def listen():
        for chunk in client.chat.completions.create(**question("break off", stream=True)):
            contents.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)

    return {"contents": contents, **caught(listen)}


def errors(client, _url):
    def ask(text, **more):
        return lambda: client.chat.completions.create(**question(text, **more))

    return {
        "n": caught(ask("why?", n=2)),
        "fail": caught(ask("fail")),
        "fail_streaming": caught(ask("fail", stream=True)),
        "limited": caught(ask("be limited")),
        "broken_off": broken_off(client),
    }


def models(client, _url):
    return {"ids": [model.id for model in client.models.list()], "one": client.models.retrieve(ALIAS).id}


if __name__ == "__main__":
    group, url = sys.argv[1:]
    sdk = openai.OpenAI(base_url=url, api_key="sk-of-the-caller")
    groups = {"answers": answers, "tools": tools, "selected": selected, "errors": errors, "models": models}
    print(json.dumps(groups[group](sdk, url)))
