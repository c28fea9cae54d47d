"""A language model from a folder: a tiny one with random weights, where transformers is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from adstool.config_services import LlmSettings
from adstool.content.enrichment.calls import Caller
from adstool.content.enrichment.chat import RefusedRequest
from adstool.content.enrichment.connect import open_chat
from adstool.content.enrichment.prompts import ItemText, attribute_messages
from adstool.content.enrichment.schema import parse_attributes
from adstool.errors import AdstoolError

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers: Any = pytest.importorskip("transformers", reason="the extra adstool[llm] is not installed")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers  # comes with transformers

    path = tmp_path_factory.mktemp("llm")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1, **{letter: 2 + n for n, letter in enumerate(alphabet)}}
    letters = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    letters.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=letters, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_it_answers_as_transformers_does(folder: Path) -> None:
    import torch
    import transformers

    settings = LlmSettings(model=f"local-dir:{folder}", max_output_tokens=12)
    messages = attribute_messages(ItemText("red dress", None, None, None))
    chat = open_chat(settings)
    answer = chat.answer(messages)
    prompt = "".join(f"[{m['role']}] {m['content']}\n" for m in messages) + "[assistant] "
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    given = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        for _ in range(12):  # greedy, one letter at a time
            following = model(given).logits[0, -1].argmax()
            given = torch.cat([given, following[None, None]], dim=1)
            if int(following) == 1:
                break
    assert answer.tokens_in == len(prompt.encode())
    assert answer.text == tokenizer.decode(given[0, answer.tokens_in :], skip_special_tokens=True)
    assert answer.text == chat.answer(messages).text
    assert (chat.name, chat.parallel) == (f"local-dir:{folder.name}", 1)
    outcome = Caller(chat, settings).ask_for(messages, parse_attributes)
    assert outcome.problem is not None  # random letters are no JSON, also the second time
    with pytest.raises(RefusedRequest, match="tokens"):
        chat.answer([{"role": "user", "content": "x" * 4200}])


def test_a_folder_that_is_no_model_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(AdstoolError, match="cannot be loaded"):
        open_chat(LlmSettings(model=f"local-dir:{tmp_path}"))


def test_without_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AdstoolError, match="not installed") as caught:
        open_chat(LlmSettings(model=f"local-dir:{tmp_path}"))
    assert "adstool[llm]" in caught.value.hint
