#!/usr/bin/env python3
"""Writes cases.json: chat templates, conversations, and what Jinja makes of them, set up as transformers sets it up.

    python3 -m venv venv && venv/bin/pip install jinja2 && venv/bin/python generate.py > cases.json

The templates are written for this test; they produce the formats of well-known models.
"""

import json
import sys
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """The tags that mark what a model has written: they render what they enclose, in a scope of its own."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_enclosed"), [], [], body).set_lineno(line)

    def _enclosed(self, caller):
        return caller()


class Refused(Exception):
    pass


def raise_exception(message):
    raise Refused(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.filters["fromjson"] = json.loads
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: datetime(2024, 7, 26, 9, 5, 3).strftime(format)
    return env


CHATML = """\
{% for message in messages %}
{% if loop.first and message['role'] != 'system' %}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "You may call these functions:\\n\\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("Only one call at a time!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}' + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

GEMMA2 = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages -%}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor -%}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

GEMMA3 = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must alternate user/assistant") }}
    {%- endif -%}
    {{ '<start_of_turn>' + ("model" if message['role'] == 'assistant' else message['role']) + '\\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif -%}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages if message.role != "tool" %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS][" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
            {{- "][/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] | trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""

PHI3 = """\
{% for message in messages %}{{ '<|' + message['role'] + '|>' + '\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

THINKING = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or not loop.first %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

GENERATION = """\
{% for message in messages %}
{% if message.role == 'assistant' %}
  {%- generation %}
    {% set inner = 'set inside' %}
{{ message.content }}!
  {% endgeneration -%}
  {{ inner is defined }}
{% else %}
{{ message.content }}?
{% endif %}
{% endfor %}
"""

PYTHON = """\
{{ messages[0].content }} {{ true }} {{ none }} {{ 1.0 }} {{ 3 / 2 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }}
{{ [1, 'a', none, true] }} {{ {'k': "it's"} }} {{ missing }}|{{ 'x' if false }}|{{ (1, 2) }}
{{ 'a,b,c'.split(',')[-1] }} {{ '  x '.strip() }}| {{ 'abc'[::-1] }} {{ 'abc'[1:] }} {{ 'abc'[-2] }} {{ 'Abc'.upper() }}
{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | list }}
{{ {'b': 1, 'a': [2]} | dictsort }} {{ {'b': 1, 'a': 2}.items() | list }} {{ {'b': 1}.get('c', 'none') }}
{% for x in [1, 2, 3, 4, 5] %}{% if x == 2 %}{% continue %}{% elif x == 5 %}{% break %}{% endif %}{{ loop.index }}:{{ x }}{{ loop.last }} {% endfor %}

{% macro greet(name, mark='!') %}Hi {{ name }}{{ mark }}{% endmacro %}
{{ greet('Ada') }} {{ greet('Bo', mark='?') }} {{ 'a' ~ 1 ~ none }} {{ 'é' | tojson(ensure_ascii=true) }}
{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + m.content | length %}{% endfor %}{{ ns.n }}
{{ {'z': 1, 'a': {'d': 0.1, 'c': 1e-7}} | tojson }} {{ {'z': 1, 'a': [1, {}]} | tojson(indent=2, sort_keys=true) }}
{{ [1, 2] | tojson(separators=(',', ':')) }} {{ '"<\\'&>\\n\\u00e9' | tojson }} {{ '{"b": [1, 2.5, null], "a": "x"}' | fromjson | tojson }}
{{ 'Hello %s, %d' | format('you', 3) }} {{ ' a b ' | trim | replace('a', 'c') | capitalize }} {{ [3, 1, 2] | sort | first }}
{{ 'x' in 'xyz' }} {{ 'k' in {'k': 1} }} {{ 3 is number }} {{ 'a' is string }} {{ [] is iterable }} {{ {} is mapping }}
{{ none is none }} {{ x is defined }} {{ 'line\\nline' | indent(2) }} {{ [1, 2, 3][1:] | last }} {{ range(3) | list }} {{ 'ab' * 2 }}
{{ '%.2f' | format(2.5) }} {{ messages[-1]['role'] }} {{ messages[0].nothing is defined }} {{ not messages }} {{ 1 < 2 <= 2 }}
{{ 'a' is iterable }} {{ none is iterable }} {{ 1 is iterable }} {{ 'a' is sequence }} {{ {} is sequence }} {{ missing is iterable }}
{% for c in 'ab' %}{{ c }},{% endfor %} {{ {'a': 1} == {'a': 1} }} {{ 'a' 'b' }} {{ ('a' if 0 else 'b') ~ [1][0] }} {{ -1 | abs }}
{{- '  tight  ' -}}
   end
"""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a town: \"now\" or later",
        "parameters": {
            "type": "object",
            "properties": {
                "town": {"type": "string", "description": "such as Zürich"},
                "days": {"type": "integer", "enum": [1, 2, 3], "default": 1.5},
            },
            "required": ["town"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {}, "return": {"type": "string"}}}


def message(role, content, **more):
    return {"role": role, "content": content, **more}


USER = message("user", " Hello, who are you? ")
TALK = [USER, message("assistant", "A model.\n"), message("user", "Good.")]
SYSTEM = message("system", " Be short. ")
CALL = message(
    "assistant",
    "",
    tool_calls=[{"type": "function", "function": {"name": "get_weather", "arguments": {"town": "Zürich", "days": 2}}}],
)
ANSWER = message("tool", '{"sky": "grey"}')
THOUGHT = message("assistant", "<think>\nHm.\n</think>\n\nA model.")

CASES = [
    ("chatml", CHATML, [USER], {}),
    ("chatml", CHATML, [SYSTEM] + TALK, {}),
    ("chatml", CHATML, [SYSTEM] + TALK[:2], {"add_generation_prompt": False}),
    ("chatml", CHATML, [], {}),
    ("llama3", LLAMA3, TALK, {}),
    ("llama3", LLAMA3, [SYSTEM] + TALK, {"extra": {"date_string": "1 Jan 2025"}}),
    ("llama3", LLAMA3, [USER, CALL, ANSWER], {"tools": [WEATHER, CLOCK]}),
    ("llama3", LLAMA3, [USER, message("tool", {"sky": ["grey", 1.0]})], {}),
    ("llama3", LLAMA3, [USER, {**CALL, "tool_calls": CALL["tool_calls"] * 2}], {}),
    ("gemma2", GEMMA2, TALK, {}),
    ("gemma2", GEMMA2, [SYSTEM, USER], {}),
    ("gemma2", GEMMA2, [USER, USER], {}),
    ("gemma3", GEMMA3, TALK, {}),
    ("gemma3", GEMMA3, [SYSTEM] + TALK, {"add_generation_prompt": False}),
    ("gemma3", GEMMA3, [message("system", [{"type": "text", "text": "Be kind."}]), message("user", [{"type": "image"}, {"type": "text", "text": " What? "}])], {}),
    ("gemma3", GEMMA3, [message("user", None)], {}),
    ("gemma3", GEMMA3, TALK[1:], {}),
    ("mistral", MISTRAL, TALK, {}),
    ("mistral", MISTRAL, [SYSTEM] + TALK, {"tools": [WEATHER, CLOCK]}),
    ("mistral", MISTRAL, [USER, USER], {}),
    ("mistral", MISTRAL, [USER, message("assistant", "Yes."), message("tool", "x")], {}),
    ("phi3", PHI3, [SYSTEM] + TALK, {}),
    ("phi3", PHI3, TALK[:2], {"add_generation_prompt": False}),
    ("thinking", THINKING, [SYSTEM, USER, THOUGHT, message("user", "Good.")], {}),
    ("thinking", THINKING, [USER, THOUGHT], {"add_generation_prompt": False}),
    ("thinking", THINKING, [USER, CALL, ANSWER, ANSWER], {"tools": [WEATHER], "extra": {"enable_thinking": False}}),
    ("thinking", THINKING, [USER, {**CALL, "content": "So.", "reasoning_content": "\nHm.\n"}, ANSWER], {"extra": {"enable_thinking": True}}),
    ("generation", GENERATION, TALK, {}),
    ("python", PYTHON, TALK, {}),
]


def main():
    cases = []
    for name, template, messages, options in CASES:
        variables = {
            "messages": messages,
            "tools": options.get("tools"),
            "documents": None,
            "add_generation_prompt": options.get("add_generation_prompt", True),
            "bos_token": "<s>",
            "eos_token": "</s>",
            **options.get("extra", {}),
        }
        case = {"template": name, "messages": messages, **options}
        try:
            case["text"] = environment().from_string(template).render(**variables)
        except Refused as refused:
            case["refused"] = str(refused)
        except jinja2.exceptions.UndefinedError as error:
            case["undefined"] = str(error)
        cases.append(case)
    templates = {name: template for name, template, _, _ in CASES}
    json.dump({"templates": templates, "cases": cases}, sys.stdout, ensure_ascii=False, indent=1)
    print()


main()
