"""Records what Meta's own SAM 2 makes of weights by chance, which nextmask's reading of its checkpoints is tested with.

pip install sam2
python tests/record_sam.py
"""

from __future__ import annotations

import json

import numpy as np
from sam_weights import PROMPTS, RECORDED, mask_before, picture, weights_of

_SKIPPED = ("memory_", "mask_downsample", "maskmem_", "obj_ptr_", "no_mem_pos_enc", "no_obj_")
"""What only videos need."""
_STABLE = tuple(
    f"++model.sam_mask_decoder_extra_args.dynamic_multimask_{name}"
    for name in ("via_stability=true", "stability_delta=0.05", "stability_thresh=0.98")
)
"""As Meta's `build_sam2` sets it."""
STEP = 32


def main() -> None:
    from hydra import compose  # here, as what collects tests imports every module of this folder
    from hydra.utils import instantiate
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    model = instantiate(compose("configs/sam2.1/sam2.1_hiera_t.yaml", overrides=list(_STABLE)).model, _recursive_=True)
    state = model.eval().state_dict()
    shapes = {name: list(tensor.shape) for name, tensor in state.items() if not name.startswith(_SKIPPED)}
    model.load_state_dict({**state, **weights_of(shapes)})
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(picture())
    logits = []
    for prompt in PROMPTS:
        seed, box = prompt.get("mask"), prompt.get("box")
        _, ious, low = predictor.predict(
            np.array(prompt["points"], np.float32),
            np.array(prompt["labels"]),
            box=None if box is None else np.array(box, np.float32),
            mask_input=None if seed is None else mask_before(seed)[None],
            multimask_output=prompt["labels"] == [1],
            return_logits=True,
        )
        logits.append(low[int(ious.argmax())][::STEP, ::STEP].round(5).tolist())
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps({"shapes": shapes, "step": STEP, "logits": logits}) + "\n")


if __name__ == "__main__":
    main()
