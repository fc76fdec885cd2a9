"""Records what the device of one worker executes, by name: kernels on a GPU, operators on a CPU."""

from __future__ import annotations

from typing import Any

from conformance.inside_vllm import adapters


class Recording:
    """torch's profiler, from its creation until ``end``; it slows the server down."""

    def __init__(self) -> None:
        profiler = adapters.upstream("torch", "profiler")
        activity = profiler.ProfilerActivity.CPU if adapters.on_cpu() else profiler.ProfilerActivity.CUDA
        self.activity = str(activity.name)
        self._profile: Any = profiler.profile(activities=[activity])
        self._profile.start()

    def end(self) -> dict[str, int]:
        """How often each kernel was executed, without runtime calls such as cudaLaunchKernel."""
        self._profile.stop()
        averages = self._profile.key_averages()
        return {each.key: int(each.count) for each in averages if each.device_type.name == self.activity}
