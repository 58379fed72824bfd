r"""Make a packaged model of a trained one: what it is for goes into its card.

    python tests/benchmarks/package_model.py RUN/roads.last.safetensors --data RUN/data \
        --theme "roads and streets" --pixels 0.8,2.08 --widths 3.6,12 \
        -o geothresh/nn/models/roads.safetensors

Of several models of one start, say with other seeds, the mean of their weights is taken, with the
card of the first. A model of a start that reads smoothed maps has that in its card already;
``--smooth`` adds it. Where they are not given, the pixel sizes are those of its training, widened
by the root of the zoom that its chips had, and so are the widths of the foreground of its masks,
the 5th to the 95th percentile. What is given is what has measured better: scenes beyond are read at
the nearest. With ``--native`` the card has no sizes at all, and scenes are read as they are,
whatever their pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measuring import script_parser

from geothresh.nn.modelfile import load_weights, read_card, save_model
from geothresh.nn.scope import ENTRY, GroundSampleDistance, ModelScope
from geothresh.raster.pairs import read_mask
from geothresh.thresholding import foreground_width


def widths_of(data: Path, zoom: float) -> list[float]:
    """Range of the widths of the foreground in pixels, as chips of that zoom have it."""
    masks = sorted(data.glob("*/*_mask.png"))
    widths = [w for path in masks if (w := foreground_width(read_mask(path))) is not None]
    least, greatest = np.percentile(widths, [5, 95])
    return [
        round(float(least) / math.sqrt(zoom), 1),
        round(float(greatest) * math.sqrt(zoom), 1),
    ]


def mean_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of tensors of one shape and type, in their type."""
    total = torch.stack([tensor.double() for tensor in tensors]).mean(dim=0)
    return total.to(tensors[0].dtype)


def main() -> None:
    """Write the model with its card."""
    parser = script_parser(__doc__)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True, help="folders of masks trained on")
    parser.add_argument("--theme", required=True)
    parser.add_argument("--keep", type=float)
    parser.add_argument("--pixels", help="least and greatest in metres that are read as they are")
    parser.add_argument("--widths", help="likewise of the foreground, in pixels")
    parser.add_argument("--native", action="store_true", help="read all scenes as they are")
    parser.add_argument("--strength", type=float, help="share of its logit in the refined one")
    parser.add_argument("--smooth", action="store_true", help="it reads maps smoothed")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    card = read_card(arguments.models[0])
    training = dict(card.training)
    zoom = float(training["recipe"]["zoom"])
    known = GroundSampleDistance.of_card(training)
    if known is not None:
        wide = known.widened(zoom)
        training[ENTRY] = [round(wide.least, 2), round(wide.greatest, 2)]
    if arguments.pixels:
        training[ENTRY] = [float(size) for size in arguments.pixels.split(",")]
    training["widths"] = widths_of(arguments.data, zoom)
    if arguments.widths:
        training["widths"] = [float(width) for width in arguments.widths.split(",")]
    if arguments.native:
        for entry in (ENTRY, "widths"):
            training.pop(entry, None)
    training["theme"] = arguments.theme
    if arguments.keep is not None:
        training["keep"] = arguments.keep
    if arguments.strength is not None:
        training["strength"] = arguments.strength
    if arguments.smooth:
        training["smooth"] = True
    loaded = [load_weights(model, card.config) for model in arguments.models]
    weights = {name: mean_of([one[name] for one in loaded]) for name in loaded[0]}
    save_model(arguments.output, tensors=weights, config=card.config, training=training)
    scope = ModelScope.of_card(read_card(arguments.output).training)
    print(
        f"{arguments.output}: {scope.text()}; widths {scope.widths}, keep {scope.keep}, "
        f"strength {scope.strength:g}, smooth {scope.smooth}"
    )


if __name__ == "__main__":
    main()
