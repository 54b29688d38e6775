"""The official client of OpenAI's API against a server: every kind of request, and every kind of error."""

import json
import sys
from typing import Literal

import httpx
import openai
from openai import OpenAI
from pydantic import BaseModel

from server import STORIES, TALKER, Server, run

KEY = "sk-check"
MESSAGES = [{"role": "user", "content": "Tell me of a dog."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["dog", "cat"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 20},
    },
    "required": ["name", "kind", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Rome", "Oslo"]}},
            "required": ["town"],
            "additionalProperties": False,
        },
    },
}

server = Server(env={"THERMITE_API_KEYS": KEY})
client = OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0, timeout=60)


def raises(kind, call, *parts):
    """The error of a call, which must be of `kind` and say `parts`."""
    try:
        call()
    except kind as error:
        assert all(part in str(error) for part in parts), f"{parts} not all in: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def chat(**arguments):
    arguments = {"model": TALKER, "messages": MESSAGES, "max_tokens": 16} | arguments
    return client.chat.completions.create(**arguments)


def complete(**arguments):
    arguments = {"model": STORIES, "prompt": "Once upon a time", "max_tokens": 16} | arguments
    return client.completions.create(**arguments)


def models():
    assert [model.id for model in client.models.list()] == [STORIES, TALKER]
    assert client.models.retrieve(TALKER).id == TALKER
    raises(openai.NotFoundError, lambda: client.models.retrieve("none"))


def a_conversation():
    answer = chat(temperature=0)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and choice.message.role == "assistant"
    assert choice.message.content and choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert chat(temperature=0).choices[0].message.content == choice.message.content


def parts_of_a_message_and_a_system_prompt():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "of a dog."}]},
    ]
    assert chat(messages=messages).usage.prompt_tokens > chat().usage.prompt_tokens


def a_completion():
    one = complete(temperature=0)
    assert one.object == "text_completion" and one.choices[0].text
    assert one.usage.completion_tokens <= 16
    several = complete(temperature=0, prompt=["Once upon a time", "Lily had a"], n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == one.choices[0].text


def streams():
    whole = chat(temperature=0, max_tokens=40)
    chunks = list(chat(temperature=0, max_tokens=40, stream=True, stream_options={"include_usage": True}))
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content and sum(map(bool, texts)) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage or chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert not chunks[-1].choices and len({chunk.id for chunk in chunks}) == 1
    text = "".join(chunk.choices[0].text for chunk in complete(temperature=0, stream=True) if chunk.choices)
    assert text == complete(temperature=0).choices[0].text


def a_stream_that_is_left_stops():
    with complete(max_tokens=450, stream=True, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))
    server_is_idle()


def server_is_idle():
    headers = {"Authorization": f"Bearer {KEY}"}
    for _ in range(200):
        text = httpx.get(server.url + "/metrics", headers=headers).text
        lines = [line for line in text.splitlines() if line.startswith("thermite_requests_running")]
        if sum(float(line.rsplit(" ", 1)[1]) for line in lines) == 0:
            return
    raise AssertionError("requests run on")


def seeds():
    texts = [complete(seed=seed, temperature=1.2, max_tokens=24).choices[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def stop_strings():
    whole = complete(temperature=0, max_tokens=60).choices[0].text
    word = whole.split()[5]
    stopped = complete(temperature=0, max_tokens=60, stop=[word, "never there"]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.text == whole[: whole.index(word)]


def penalties_and_biases():
    plain = complete(temperature=0, max_tokens=40).choices[0].text
    assert complete(temperature=0, max_tokens=40, frequency_penalty=2, presence_penalty=2).choices[0].text != plain
    first = complete(temperature=0, max_tokens=1, logprobs=0).choices[0]
    token = server_token(first.text)
    assert complete(temperature=0, max_tokens=1, logit_bias={str(token): -100}).choices[0].text != first.text


def server_token(text):
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": STORIES, "prompt": text, "add_special_tokens": False}
    answer = httpx.post(server.url + "/tokenize", headers=headers, json=body).json()
    return answer["tokens"][-1]


def log_probabilities():
    choice = chat(temperature=0, logprobs=True, top_logprobs=3).choices[0]
    content = choice.logprobs.content
    assert "".join(token.token for token in content).strip() == choice.message.content.strip()
    for token in content:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        assert token.logprob == token.top_logprobs[0].logprob
    logprobs = complete(temperature=0, logprobs=2).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 16
    assert all(len(top) >= 2 for top in logprobs.top_logprobs)


def a_json_schema():
    form = {"type": "json_schema", "json_schema": {"name": "pet", "strict": True, "schema": SCHEMA}}
    for seed in range(5):
        pet = json.loads(chat(response_format=form, max_tokens=100, seed=seed).choices[0].message.content)
        assert set(pet) == {"name", "kind", "age"} and pet["kind"] in ("dog", "cat") and 0 <= pet["age"] <= 20
        assert len(pet["name"]) <= 12
    # a small model need not come to the end of an object without a schema, but it must begin one
    free = chat(response_format={"type": "json_object"}, max_tokens=400, temperature=0).choices[0]
    assert free.message.content.lstrip().startswith("{")
    assert free.finish_reason == "length" or isinstance(json.loads(free.message.content), dict)


class Pet(BaseModel):
    """A pet, as the client's own helper for schemas has it."""

    likes_water: bool
    legs: Literal[2, 4]


def a_parsed_class():
    answer = client.chat.completions.parse(model=TALKER, messages=MESSAGES, response_format=Pet, max_tokens=100, seed=1)
    assert isinstance(answer.choices[0].message.parsed, Pet)


def tools():
    several = chat(tools=[WEATHER], tool_choice="required", max_tokens=100)
    cut_off = several.usage.completion_tokens == 100
    assert several.choices[0].finish_reason == ("length" if cut_off else "tool_calls")
    answer = chat(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_tokens=100)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert call.function.name == "weather" and json.loads(call.function.arguments)["town"] in ("Rome", "Oslo")
    named = {"type": "function", "function": {"name": "weather"}}
    chunks = list(chat(tools=[WEATHER], tool_choice=named, max_tokens=100, stream=True))
    calls = [c for chunk in chunks if chunk.choices for c in chunk.choices[0].delta.tool_calls or []]
    assert "".join(c.function.name or "" for c in calls) == "weather"
    assert json.loads("".join(c.function.arguments or "" for c in calls))["town"] in ("Rome", "Oslo")
    said = [*MESSAGES, choice.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
    assert chat(messages=said, tools=[WEATHER], tool_choice="none").choices[0].message.content


def embeddings():
    texts = ["The dog runs.", "The dog runs.", "Once upon a time there was a king"]
    vectors = [item.embedding for item in client.embeddings.create(model=STORIES, input=texts).data]
    assert vectors[0] == vectors[1] != vectors[2] and len({len(vector) for vector in vectors}) == 1
    floats = client.embeddings.create(model=STORIES, input=texts[0], encoding_format="float").data[0].embedding
    assert max(abs(a - b) for a, b in zip(floats, vectors[0])) < 1e-6


def errors():
    other = client.with_options(api_key="wrong")
    assert raises(openai.AuthenticationError, lambda: other.models.list()).code == "invalid_api_key"
    raises(openai.NotFoundError, lambda: complete(model="none"), "none")
    bad = openai.BadRequestError
    raises(bad, lambda: complete(extra_body={"frobnicate": 1}), "frobnicate")
    raises(bad, lambda: complete(temperature=-1), "temperature")
    raises(bad, lambda: complete(max_tokens=0), "max_tokens")
    raises(bad, lambda: complete(n=1000), "n")
    raises(bad, lambda: chat(messages=[]), "messages")
    raises(bad, lambda: chat(messages=[{"role": "wizard", "content": "x"}]), "wizard")
    raises(bad, lambda: chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}))
    error = raises(bad, lambda: complete(prompt="dog " * 600), "512")
    assert error.code == "context_length_exceeded"


def a_full_queue_is_told():
    # more texts at once than the server takes on
    with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
        body = {"model": STORIES, "prompt": ["Once"] * 64, "n": 16, "max_tokens": 200}
        answer = http.post(server.url + "/v1/completions", json=body)
        if answer.status_code == 429:
            assert int(answer.headers["Retry-After"]) >= 1 and answer.json()["error"]["code"] == "queue_full"
        else:
            assert answer.status_code in (200, 400), answer.text


if __name__ == "__main__":
    with server:
        checks = [
            models, a_conversation, parts_of_a_message_and_a_system_prompt, a_completion, streams,
            a_stream_that_is_left_stops, seeds, stop_strings, penalties_and_biases, log_probabilities, a_json_schema,
            a_parsed_class, tools, embeddings, errors, a_full_queue_is_told,
        ]
        failed = run(checks)
    sys.exit(failed)
