"""Files of a training: one run at a time, nothing replaced unasked, and the state to go on from."""

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
from geothresh.training.state import Progress, SavedRun, place_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutput:
    """A model in the making, which no other run makes meanwhile."""

    model: Path
    state: Path | None
    """Of the run that goes on; None where one begins."""
    kind: Kind
    overwrite: bool
    """Whether what is there is replaced, and no run goes on."""

    @property
    def replaces(self) -> bool:
        """Whether files that exist are this run's to replace."""
        return self.overwrite or self.state is not None

    @property
    def saved(self) -> SavedRun | None:
        """Metadata of the state.

        Raises:
            ModelError: it is none.
        """
        return None if self.state is None else SavedRun.read(self.state, self.kind)

    def fit(self, make: Callable[[], Task], **on: Any) -> Progress:
        """Train what `make` gives, and say of what ends it how the run goes on.

        Args:
            make: builds the network, which takes long.
            **on: progress, see `geothresh.training.loop.fit`.
        """
        states = beside(self.model, ".state.safetensors")
        if self.state is None:
            # Of a run that is to be replaced: nothing goes on with it any more.
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
    """Lock the files of a model for one run, and find the state that it goes on from.

    Args:
        model: the file, ``.safetensors``.
        kind: of model.
        endings: of the files that come beside it, and the states.
        resume: True goes on with the run that was stopped and fails where there is none; None goes
            on with it if there is one that is not finished; False never does.
        overwrite: start anew and replace what is there.
        inputs: files that must outlive the run.

    Raises:
        OutputError: a file is in the way, or another run is making the model.
        UsageError: there is no run to go on with, but one is asked for.
        ModelError: the one that is asked for is damaged.
    """
    model = Path(model)
    if model.suffix != ".safetensors":
        raise UsageError(f"{model}: a model is a .safetensors file; name it so")
    # The directory, before there is a lock in it; what is in its place is judged with the state.
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
