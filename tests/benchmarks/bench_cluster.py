"""What a Dask cluster costs beside the work: tasks, this process's time, bytes between processes.

    python tests/benchmarks/bench_cluster.py --workers 16 --side 16384

Workers are processes of this machine, and the model gives back what it gets, so that what is left
is reading, blending and the cluster itself. Chunks come back as `refine` has them, mask and
confidence, deflated. "This process" is scheduler, client and a sink that throws chunks away: what
one machine has to do however many workers there are elsewhere, but for writing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from dask.distributed import Client, LocalCluster
from distributed import Worker
from identity import IdentitySource, MaskAndConfidence
from measuring import machine, script_parser
from scenes import OVERLAP, TILE, random_bytes

from geothresh.mosaic import Layers, Scheduler, Sink, mosaic
from geothresh.mosaic.readers import ArrayReader, NpyReaderSpec
from geothresh.packed import PackedLayer
from geothresh.tiling import TileGrid
from geothresh.windows import PixelWindow


@contextmanager
def counted_submits() -> Iterator[dict[str, int]]:
    """Tasks that a client sends off meanwhile, by the name of their function."""
    counts: dict[str, int] = {}
    submit = Client.submit

    def counting(self: Client, function: object, *args: object, **options: object) -> object:
        name = getattr(function, "__name__", "other")
        counts[name] = counts.get(name, 0) + 1
        return submit(self, function, *args, **options)

    Client.submit = counting  # type: ignore[assignment, method-assign]
    try:
        yield counts
    finally:
        Client.submit = submit  # type: ignore[method-assign]


def sent_bytes(dask_worker: Worker) -> int:
    """Bytes of results that a worker has sent to others and to the client."""
    return int(dask_worker.transfer_outgoing_bytes_total)


def main() -> None:
    """Run one mosaic and print what it took."""
    parser = script_parser(__doc__)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--side", type=int, default=16384, help="rows and columns of the raster")
    parser.add_argument("--chunk-width", type=int, default=4096, help="columns of a chunk")
    chosen = parser.parse_args()
    print(machine("dask", "distributed", "numpy"))
    received = {"chunks": 0}

    def sink(window: PixelWindow, layers: Layers, packed: Sequence[PackedLayer]) -> None:
        received["chunks"] += 1

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "confidence.npy"
        values = random_bytes(chosen.side, chosen.side).astype(np.float32)
        np.save(path, values * np.float32(1 / 255))
        del values
        spec = NpyReaderSpec(path=str(path))
        reader = ArrayReader(np.load(path, mmap_mode="r"))
        grid = TileGrid(size=reader.size, tile=TILE, overlap=OVERLAP)
        with (
            LocalCluster(
                n_workers=chosen.workers, threads_per_worker=2, processes=True, memory_limit=0,
                host="127.0.0.1", dashboard_address=None, local_directory=scratch,
            ) as cluster,
            Client(cluster) as client,
            counted_submits() as tasks,
        ):  # fmt: skip
            client.wait_for_workers(chosen.workers)
            before, started = time.process_time(), time.perf_counter()
            mosaic(
                reader, IdentitySource(),
                Sink(sink, finish=MaskAndConfidence(), chunk_width=chosen.chunk_width),
                grid=grid, batch_size=8, reader_spec=spec,
                where=Scheduler(address=cluster.scheduler_address),
            )  # fmt: skip
            own, wall = time.process_time() - before, time.perf_counter() - started
            sent = sum(client.run(sent_bytes).values())
    tiles, pixels = grid.n_tiles, chosen.side**2
    total = sum(tasks.values())
    print(
        f"{chosen.side} x {chosen.side}, {tiles} tiles, {received['chunks']} chunks, "
        f"{chosen.workers} worker processes: {wall:.1f} s"
    )
    print(
        f"tasks: {total}, {total / tiles:.2f} a tile ("
        + ", ".join(f"{name.strip('_')} {count}" for name, count in sorted(tasks.items()))
        + ")"
    )
    print(
        f"this process: {own:.2f} s of processor time, {own / tiles * 1e3:.2f} ms a tile, "
        f"{pixels / own / 1e6:.0f} MP per second of it"
    )
    print(f"bytes between processes: {sent / pixels:.2f} a pixel")


if __name__ == "__main__":
    main()
