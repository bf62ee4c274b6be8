"""One pull of an image for everybody who waits for it, with its progress in percent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from workshop_hub.errors import ImageError

Report = Callable[[Mapping[str, object]], None]
Puller = Callable[[str, Report], Awaitable[None]]

LOOK_EVERY = 0.5
"""Seconds between two looks at the progress; a page shows no more than that."""

DOWNLOAD_SHARE = 0.7
"""Part of a layer's work that is its download; the rest is unpacking."""


class Meter:
    """Adds the layers' progress up. It never falls, though new layers keep being announced."""

    def __init__(self) -> None:
        self.percent = 0
        self._layers: dict[str, float] = {}

    def report(self, line: Mapping[str, object]) -> None:
        """Take one line of the engine's progress."""
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        detail = line.get("progressDetail")
        done = _done(status, detail if isinstance(detail, Mapping) else {})
        if not layer or done is None:
            return
        self._layers[layer] = max(done, self._layers.get(layer, 0.0))
        share = sum(self._layers.values()) / len(self._layers)
        self.percent = max(self.percent, int(99 * share))


class Pulls:
    """The pulls that run. A follower who gives up does not end the pull: the next one finds it."""

    def __init__(self, puller: Puller) -> None:
        self._puller = puller
        self._running: dict[str, tuple[asyncio.Task[None], Meter]] = {}

    async def follow(self, image: str) -> AsyncIterator[int]:
        """Pull `image`, or join the pull that runs; yield percents; raise what the pull raises."""
        if image not in self._running:
            self._begin(image)
        task, meter = self._running[image]
        shown = -1
        while True:
            done, _ = await asyncio.wait({task}, timeout=LOOK_EVERY if shown >= 0 else 0)
            if done:
                break
            if meter.percent != shown:
                shown = meter.percent
                yield shown
        task.result()

    def _begin(self, image: str) -> None:
        meter = Meter()
        task: asyncio.Task[None] = asyncio.ensure_future(self._pull(image, meter))
        self._running[image] = (task, meter)
        task.add_done_callback(lambda _: self._end(image, task))

    async def _pull(self, image: str, meter: Meter) -> None:
        await self._puller(image, meter.report)

    def _end(self, image: str, task: asyncio.Task[None]) -> None:
        del self._running[image]
        if not task.cancelled():
            task.exception()  # seen, even where every follower has gone


def _done(status: str, detail: Mapping[str, object]) -> float | None:
    """Return how much of a layer's work is done, from 0 to 1; None where a line does not say."""
    if status in ("Pull complete", "Already exists"):
        return 1.0
    if status == "Download complete":
        return DOWNLOAD_SHARE
    if status in ("Pulling fs layer", "Waiting"):
        return 0.0
    current, total = detail.get("current"), detail.get("total")
    if not isinstance(current, int) or not isinstance(total, int) or total <= 0:
        return None
    part = min(1.0, current / total)
    if status == "Extracting":
        return DOWNLOAD_SHARE + (1 - DOWNLOAD_SHARE) * part
    return DOWNLOAD_SHARE * part if status == "Downloading" else None


def split_tag(image: str) -> tuple[str, str]:
    """Split off the tag or digest; without one it is `latest`, for else every tag is pulled."""
    if "@" in image:
        name, _, digest = image.partition("@")
        return name, digest
    name, colon, tag = image.rpartition(":")
    if colon and "/" not in tag:
        return name, tag
    return image, "latest"


def pull_failed(image: str, reason: str) -> ImageError:
    """Describe a pull that failed, in the registry's words."""
    return ImageError(
        f"The image {image} cannot be pulled: {reason}",
        remedy=f'Check its name, or try "docker pull {image}" on the machine.',
    )
