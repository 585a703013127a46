"""Tokenizers and chat templates that behave as those of well-known families; each written for this purpose."""

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% endfor %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Name: the template, and where the system words go: a turn of their own, the user's, or outside of the chat.
FAMILIES: dict[str, tuple[str | None, str]] = {
    "llama-2": (
        (
            "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
            "{% set system = messages[0]['content'] %}"
            "{% else %}{% set rest = messages %}{% set system = false %}{% endif %}"
            "{% for m in rest %}{% if loop.first and system %}"
            "{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + m['content'] %}"
            "{% else %}{% set content = m['content'] %}{% endif %}"
            "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
            "{% endfor %}"
        ),
        "own",
    ),
    "llama-3": (
        (
            "{{ bos_token }}"
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
            "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
            "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
            "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
            "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
            "{{ m['content'] | trim }}<|eot_id|>"
            "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
        ),
        "own",
    ),
    "llama-4": (  # content as text or in parts
        (
            "{{ bos_token }}{% for m in messages %}<|header_start|>{{ m['role'] }}<|header_end|>\n\n"
            "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
            "{% if c['type'] == 'text' %}{{ c['text'] | trim }}{% endif %}{% endfor %}{% endif %}<|eot|>{% endfor %}"
            "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}"
        ),
        "own",
    ),
    "mistral": (
        "{{ bos_token }}" + ALTERNATE + "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
        "user's",
    ),
    "mixtral": (
        (
            "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
            "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}{% else %}"
            "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
        ),
        "user's",
    ),
    "qwen-2": (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "{% endif %}" + CHATML,
        "own",
    ),
    "qwen-3": (
        CHATML + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",
        "own",
    ),
    "gemma-2": (
        (
            "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
            "{% endif %}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
            "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
        ),
        "user's",
    ),
    "gemma-3": (  # the system words before the user's
        (
            "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
            "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}{% for m in messages %}"
            "<start_of_turn>{{ m['role'] }}\n{{ first if loop.first }}"
            "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
            "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
        ),
        "own",
    ),
    "phi-3": (  # skips the system role without a word
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>\n{{ m['content'] }}<|end|>\n<|assistant|>\n"
            "{% elif m['role'] == 'assistant' %}{{ m['content'] }}<|end|>\n{% endif %}{% endfor %}"
        ),
        "user's",
    ),
    "phi-4": (
        (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_sep|>{{ m['content'] }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
        ),
        "own",
    ),
    "smollm-2": (CHATML, "own"),
    "smollm-3": (
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
        "{% set messages = messages[1:] %}{% else %}{% set system = 'You are a helpful assistant.' %}{% endif %}"
        "<|im_start|>system\n## Metadata\n\nToday Date: {{ strftime_now('%d %B %Y') }}\n\n"
        "## Custom Instructions\n\n{{ system.replace('/no_think', '').rstrip() }}\n\n<|im_end|>\n" + CHATML,
        "own",
    ),
    "olmo": (
        (
            "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
        ),
        "own",
    ),
    "falcon": (
        (
            "{% for m in messages %}{% if not loop.first %}\n\n{% endif %}{{ m['role'] | capitalize }}: "
            "{{ m['content'] | trim }}{% endfor %}{% if add_generation_prompt %}\n\nAssistant:{% endif %}"
        ),
        "own",
    ),
    "deepseek": (
        (
            "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
            "{% set ns.system = m['content'] %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}"
            "{% for m in messages %}"
            "{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
        ),
        "own",
    ),
    "command-r": (
        (
            "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>"
            "{{ '<|SYSTEM_TOKEN|>' if m['role'] == 'system' else '<|USER_TOKEN|>' }}{{ m['content'].strip() }}"
            "<|END_OF_TURN_TOKEN|>{% endfor %}"
            "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
        ),
        "own",
    ),
    "gpt-oss": (  # the system words become a developer's, below a system turn with the date
        (
            "{%- macro build_system_message() -%}Current date: {{ strftime_now('%Y-%m-%d') }}{%- endmacro -%}"
            "<|start|>system<|message|>{{ build_system_message() }}<|end|>{%- for m in messages -%}"
            "<|start|>{{ 'developer' if m.role == 'system' else m.role }}<|message|>"
            "{{ '# Instructions\n\n' if m.role == 'system' }}{{ m.content }}<|end|>{%- endfor -%}"
            "{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"
        ),
        "own",
    ),
    "glm-4": (  # tells a model by the user's words not to think
        (
            "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ '/nothink' if m.role == 'user' and "
            "not enable_thinking }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n<think></think>{% endif %}"
        ),
        "own",
    ),
    "mistral-system-last": (  # below the user's words, which would be asked before they are explained
        (
            "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }}"
            "{% if loop.last and messages[0]['role'] == 'system' %}\n\n{{ messages[0]['content'] }}{% endif %}[/INST]"
            "{% endif %}{% endfor %}"
        ),
        "user's",
    ),
    "granite": (
        (
            "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
            "{%- set messages = messages[1:] %}{%- else %}{%- set system = strftime_now('%B %d, %Y') %}{%- endif %}"
            "<|start_of_role|>system<|end_of_role|>{{ system }}<|end_of_text|>\n{%- for m in messages %}"
            "<|start_of_role|>{{ m['role'] }}<|end_of_role|>{{ m['content'] }}<|end_of_text|>\n{%- endfor %}"
            "{%- if add_generation_prompt %}<|start_of_role|>assistant{%- if controls %}{{ controls | tojson }}"
            "{%- endif %}<|end_of_role|>{%- endif %}"
        ),
        "own",
    ),
    "needs-tools": (
        "{% for t in tools %}{{ t }}{% endfor %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
        "outside",
    ),
    "gpt-neox": (None, "outside"),
    # Of no family, but met.
    "parts-only": (
        (
            "{% for m in messages %}<|{{ m['role'] }}|>{% for c in m['content'] %}{% if c['type'] == 'text' %}"
            "{{ c['text'] }}"
            "{% endif %}{% endfor %}{% endfor %}"
        ),
        "own",
    ),
    "parts-without-system": (
        ALTERNATE + "{% for m in messages %}<u>{% for c in m['content'] %}{{ c['text'] }}{% endfor %}</u>{% endfor %}",
        "user's",
    ),
    "prints-twice": ("{% for m in messages %}{{ m['content'] }} / {{ m['content'] }}\n{% endfor %}", "outside"),
    "prints-system-twice": (
        "{{ messages[0]['content'] }}\n{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
        "outside",  # the user's turn alone is printed twice as well
    ),
    "repeats-system-only": (
        "{% for m in messages %}{{ m['content'] }}{{ m['content'] if m['role'] == 'system' }}\n{% endfor %}",
        "user's",
    ),
    "upper": ("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | upper }}\n{% endfor %}", "own"),
    "escape": ("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | e }}\n{% endfor %}", "own"),
    "first-line": ("{% for m in messages %}{{ m['content'].split('\n')[0] }}\n{% endfor %}", "own"),
    "ascii-json": ("{% for m in messages %}{{ m['content'] | tojson(ensure_ascii=true) }}{% endfor %}", "outside"),
    "user-first": ("{{ messages[-1]['content'] }}{{ messages[0]['content'] if messages | length > 1 }}", "user's"),
    "prints-nothing": ("{{ bos_token }}", "outside"),
    "raises": ("{{ raise_exception('') }}", "outside"),
    "is-broken": ("{% for m in %}", "outside"),
    "is-endless": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "outside"),
}


def byte_tokenizer(template: str | None = None) -> Any:
    """Every byte is a token."""
    names = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.decoder = decoders.ByteLevel()
    return _fast(tokens, template)


def character_tokenizer(
    *, normalizer: Any = None, feed: bool = True, blank: bool = True, eos: bool = True, letters: str = ""
) -> Any:
    """Every character is a token, as SentencePiece and others treat them.

    Args:
        normalizer: Of a text before it is read.
        feed: Whether the line feed is a token.
        blank: Whether a blank is put before a text.
        eos: Whether there is an end of text.
        letters: The characters it knows; the printable ones of ASCII by default.
    """
    known = letters or "".join(map(chr, range(33, 127)))
    names = ["<pad>", "<s>", "</s>", "<unk>", "\u2581", *(["\n"] if feed else []), *known]
    tokens = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    steps = [normalizers.Replace(Regex(r"\s" if not feed else " "), "\u2581")]
    steps = ([normalizer] if normalizer else []) + ([normalizers.Prepend("\u2581")] if blank else []) + steps
    tokens.normalizer = normalizers.Sequence(steps)
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), behavior="isolated")
    tokens.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    return _fast(tokens, None, eos="</s>" if eos else None)


def _fast(tokens: Tokenizer, template: str | None, eos: str | None = "</s>") -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", bos_token="<s>", eos_token=eos)
    made.chat_template = template
    return made
