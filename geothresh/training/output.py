"""Lock and check the output files of a training, and find the state to resume from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geothresh.durability.locking import only_run
from geothresh.durability.resuming import earlier_state, forget_states, noting, state_to_resume
from geothresh.errors import UsageError
from geothresh.files import check_output
from geothresh.nn.modelfile import Kind, beside, require_seal
from geothresh.training.loop import Task, fit
from geothresh.training.options import Splitting
from geothresh.training.state import Progress, SavedRun, place_of

_ENDINGS = (".split.json", ".last.safetensors", ".csv")


def endings(splitting: Splitting) -> list[str]:
    """Endings of the files that a training of a ThreshNet writes beside the model."""
    folds = range(1, (splitting.folds or 0) + 1) if splitting.fold_models else ()
    return [*_ENDINGS, *(f".fold{number}.safetensors" for number in folds)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutput:
    """Output files of a training, locked for this run."""

    model: Path
    state: Path | None
    """State that the run resumes from; None = it starts from the first step."""
    kind: Kind
    overwrite: bool
    """Whether existing files are replaced, and no run is resumed."""

    @property
    def replaces(self) -> bool:
        """Whether this run may replace existing files."""
        return self.overwrite or self.state is not None

    @property
    def saved(self) -> SavedRun | None:
        """Metadata of the state; None if there is no state.

        Raises:
            ModelError: the file is no state.
        """
        return None if self.state is None else SavedRun.read(self.state, self.kind)

    def fit(self, make: Callable[[], Task], **on: Any) -> Progress:
        """Train the task that `make` builds; errors say how the run can be resumed.

        Args:
            make: builds the task, which takes long.
            **on: callbacks, see `geothresh.training.loop.fit`.
        """
        states = beside(self.model, ".state.safetensors")
        if self.state is None:
            # Removes the states of an earlier run, which this run replaces.
            forget_states(states)
        with noting(lambda: place_of(states, self.kind), overwrite=self.overwrite):
            return fit(make(), self.model, state=self.state, **on)


@contextmanager
def training_output(
    model: str | Path,
    kind: Kind,
    endings: Sequence[str],
    *,
    resume: bool | None,
    overwrite: bool,
    inputs: Sequence[Path] = (),
) -> Iterator[TrainingOutput]:
    """Lock the files of a model for one run, and find the state to resume from.

    Args:
        model: the model file, ``.safetensors``.
        kind: kind of the model.
        endings: endings of the other files that are written beside it.
        resume: True resumes the run that was stopped and fails if there is none; None resumes an
            unfinished run if there is one; False never resumes.
        overwrite: start anew and replace existing files.
        inputs: files that must not be overwritten.

    Raises:
        OutputError: a file exists already, or another run is making the model.
        UsageError: `resume` is True, and there is no run to resume.
        ModelError: the run to resume is damaged.
    """
    model = Path(model)
    if model.suffix != ".safetensors":
        raise UsageError(f"{model}: a model is a .safetensors file; name it so")
    # Checks the directory before it gets a lock; existing files are checked with the state below.
    check_output(model, overwrite=True)
    with only_run(model):
        newest = beside(model, ".state.safetensors")
        state = state_to_resume(newest, require_seal, resume=resume, overwrite=overwrite)
        output = TrainingOutput(model=model, state=state, kind=kind, overwrite=overwrite)
        if resume is None and output.saved is not None and output.saved.finished:
            output = TrainingOutput(model=model, state=None, kind=kind, overwrite=overwrite)
        for file in (model, newest, earlier_state(newest), *(beside(model, e) for e in endings)):
            check_output(file, overwrite=output.replaces, inputs=inputs)
        yield output
