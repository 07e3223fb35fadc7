"""The registered model's own code: MLflow stores this file beside the weights and runs it to load them.

It imports transformers and what MLflow brings, so a version answers wherever `mlflow models serve`
runs, without this project. Weights are safetensors; nothing is unpickled.
"""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class ServedModel(PythonModel):  # type: ignore[misc]
    """Answers prompts with the registered chat model, greedily unless told otherwise.

    `predict` takes strings; params: `max_new_tokens` (default 128), `temperature` (0 is greedy),
    `weights` (`model`, or `quantized` for the int4 version).
    """

    def load_context(self, context: PythonModelContext) -> None:
        self._folders = dict(context.artifacts)
        self._loaded: dict[str, tuple[Any, Any]] = {}

    def predict(self, context, model_input: pd.DataFrame, params=None):  # type: ignore[no-untyped-def]
        # Without a type hint MLflow warns; from any other it would infer a signature, without the
        # params. Lists come as they are.
        params = params or {}
        prompts = model_input.iloc[:, 0] if hasattr(model_input, "iloc") else model_input
        model, tokenizer = self._load(str(params.get("weights", "model")))
        answers = []
        for prompt in prompts:
            inputs = tokenizer.apply_chat_template(
                [{"role": "user", "content": str(prompt)}],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
            temperature = float(params.get("temperature", 0.0))
            how = (
                {"do_sample": True, "temperature": temperature}
                if temperature
                else {"do_sample": False}
            )
            output = model.generate(
                **inputs,
                **how,
                max_new_tokens=int(params.get("max_new_tokens", 128)),
                eos_token_id=tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]),
                pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
            )
            answer = output[0, inputs["input_ids"].shape[1] :]
            answers.append(tokenizer.decode(answer, skip_special_tokens=True).strip())
        return answers

    def _load(self, weights: str) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        if weights not in self._folders:
            raise ValueError(
                f"weights {weights!r}: this version has {', '.join(sorted(self._folders))}"
            )
        if weights not in self._loaded:
            folder = self._folders[weights]
            self._loaded[weights] = (
                AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).eval(),
                AutoTokenizer.from_pretrained(folder),
            )
        return self._loaded[weights]


mlflow.models.set_model(ServedModel())
