"""Corrected memory errors: harmless each, and a sign when they rise."""


def corrected_errors() -> int | None:
    """Over the lifetime of all GPUs that NVML shows and that count them; None where none does."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    counts = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                counts.append(
                    pynvml.nvmlDeviceGetTotalEccErrors(
                        pynvml.nvmlDeviceGetHandleByIndex(index),
                        pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
                        pynvml.NVML_AGGREGATE_ECC,
                    )
                )
            except pynvml.NVMLError:
                continue  # a lost GPU, or one without error correction: the checks say so
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    return sum(int(count) for count in counts) if counts else None
