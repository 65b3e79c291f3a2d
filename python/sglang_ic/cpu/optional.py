"""Stand-ins for packages that SGLang imports and a CPU install does not have.

`torchvision` on PyPI is built against CUDA torch and `sgl_kernel` has no CPU wheel, yet SGLang
imports a few of their names while it loads. None is called when a text model runs on CPU, so the
name may be missing as long as calling it says so:

    try:
        from sgl_kernel import copy_all_layer_kv_cache_cpu
    except ImportError:
        copy_all_layer_kv_cache_cpu = absent("sgl_kernel.copy_all_layer_kv_cache_cpu")

No torch operator is registered on purpose: SGLang then reads AMX as absent and every layer takes
its plain-torch `forward_native`. Standard library only, so importing this costs nothing.
"""


class Absent:
    """A name from a package that is not installed: may be imported and dotted, not called.

    Attributes are absent names too, so that a module which mentions `T.Compose` or
    `InterpolationMode.BICUBIC` while it loads still loads. Dunder attributes stay missing, so
    that `copy`, `pickle` and `inspect` see an ordinary object.
    """

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> "Absent":
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Absent(f"{self._name}.{attribute}")

    def __call__(self, *args, **kwargs):
        """Raise ImportError: the package is not there."""
        package = self._name.partition(".")[0]
        raise ImportError(
            f"{self._name} was called, but {package!r} is not installed here; "
            f"text models on CPU never need it, so install {package!r} for what you are running"
        )

    def __repr__(self) -> str:
        return f"<absent {self._name}>"


def absent(name: str) -> Absent:
    """The stand-in for a dotted `name`, for example ``sgl_kernel.rotate_input_ids_cpu``."""
    return Absent(name)
