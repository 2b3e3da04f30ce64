"""libcomet from another language, with nothing but the standard library: publish.py LIBRARY DSN."""

import ctypes
import sys


class Receipt(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint64)]


def load(path):
    comet = ctypes.CDLL(path)
    handle, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    comet.comet_open.argtypes = [text, ctypes.POINTER(handle)]
    comet.comet_publish.argtypes = [handle, text, size, text, size, ctypes.c_uint32, ctypes.POINTER(Receipt)]
    comet.comet_write.argtypes = [handle, text, size, text, size]
    comet.comet_error.argtypes = [handle]
    comet.comet_error.restype = text
    comet.comet_close.argtypes = [handle]
    return comet


def main(library, dsn):
    comet = load(library)
    assert comet.comet_abi_version() >> 16 == 1
    handle, receipt = ctypes.c_void_p(), Receipt()
    assert comet.comet_open(dsn.encode(), ctypes.byref(handle)) == 0, comet.comet_error(None)
    data = "snake \N{SNAKE}".encode()
    result = comet.comet_publish(handle, b"news", 4, data, len(data), 0, ctypes.byref(receipt))
    assert result == 0, comet.comet_error(handle)
    print(receipt.id)
    assert comet.comet_write(handle, b"file", 4, data, len(data)) == 0, comet.comet_error(handle)
    assert comet.comet_publish(handle, b"a b", 3, b"", 0, 0, None) == -3
    assert comet.comet_error(handle).startswith(b"channel name may not contain ' '")
    comet.comet_close(handle)


main(*sys.argv[1:])
