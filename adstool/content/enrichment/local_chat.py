"""A language model from a folder of this machine, through transformers (the extra `llm`)."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from adstool.config_services import LlmSettings
from adstool.content.enrichment.chat import LOCAL, Answer, RefusedRequest
from adstool.content.enrichment.prompts import Messages
from adstool.device import pick_device
from adstool.documents import user_path
from adstool.errors import AdstoolError


class LocalChat:
    """A causal language model in a transformers folder; it answers one request at a time.

    Only safetensors weights are read and no code of the folder is run.
    """

    def __init__(self, settings: LlmSettings, *, load: bool = True) -> None:
        folder = user_path(settings.model.removeprefix(LOCAL)).resolve()
        if not (folder / "config.json").is_file():
            raise AdstoolError(
                f"{folder} holds no config.json, so it is no transformers folder.", "Mend [llm] model."
            )
        self.name = f"{LOCAL}{folder.name}"
        self.parallel = 1
        self._settings = settings
        self._lock = threading.Lock()
        if load:
            self._load(folder)

    def _load(self, folder: Path) -> None:
        try:
            transformers: Any = import_module("transformers")
        except ImportError:
            raise AdstoolError(
                "llm.model = local-dir:PATH needs the package transformers, which is not installed.",
                "Install it (pip install 'adstool[llm]'), or name an endpoint with [llm] base_url and model.",
            ) from None
        self._device = pick_device().torch
        only = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **only)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), use_safetensors=True, dtype="auto", **only
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise AdstoolError(
                f"The language model in {folder} cannot be loaded: {reason}", "Check its files."
            ) from None
        self._model = model.eval().requires_grad_(False).to(self._device)

    def answer(self, messages: Messages) -> Answer:
        """Ask once. Raises RefusedRequest for a request longer than the model's context."""
        import torch

        prompt = self._prompt(messages)
        with self._lock, torch.inference_mode():
            given = self._tokenizer(prompt, return_tensors="pt", add_special_tokens=not self._has_template)
            tokens = given["input_ids"].to(self._device)
            length = int(tokens.shape[1])
            longest = getattr(self._model.config, "max_position_embeddings", None)
            room = self._settings.max_output_tokens
            if longest is not None and length + room > longest:
                raise RefusedRequest(f"the request has {length} tokens, the model takes {longest - room}")
            written = self._model.generate(
                input_ids=tokens,
                attention_mask=given["attention_mask"].to(self._device),
                max_new_tokens=room,
                pad_token_id=self._padding(),
                **self._sampling(),
            )[0, length:]
        return Answer(self._tokenizer.decode(written, skip_special_tokens=True), length, len(written))

    @property
    def _has_template(self) -> bool:
        return bool(getattr(self._tokenizer, "chat_template", None))

    def _prompt(self, messages: Messages) -> str:
        if self._has_template:
            prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return str(prompt)
        return "\n\n".join(message["content"] for message in messages) + "\n\n"

    def _padding(self) -> int:
        given = self._tokenizer.pad_token_id
        other = self._tokenizer.eos_token_id
        return int(given if given is not None else other if other is not None else 0)

    def _sampling(self) -> dict[str, Any]:
        if self._settings.temperature <= 0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self._settings.temperature}
