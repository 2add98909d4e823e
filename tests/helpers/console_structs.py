"""The structs that the C library and the service exchange, as a C compiler lays them out."""

from __future__ import annotations

from ctypes import LittleEndianStructure, c_char, c_double, c_int32, c_uint32, c_uint64


class Problem(LittleEndianStructure):
    _fields_ = (("struct_size", c_uint32), ("status", c_int32), ("http_status", c_int32), ("retry_after_s", c_int32),
                ("code", c_char * 48), ("message", c_char * 512), ("next_step", c_char * 256))  # fmt: skip


class Corner(LittleEndianStructure):
    _fields_ = (("site", c_char * 16), ("status", c_int32), ("grade", c_int32), ("imputed", c_double),
                ("probabilities", c_double * 4))  # fmt: skip


class Disc(LittleEndianStructure):
    _fields_ = (("level", c_char * 8), ("centre_px", c_double * 2), ("anterior_px", c_double * 2),
                ("confidence", c_double), ("rotation_deg", c_double), ("total", c_double),
                ("corners", Corner * 2))  # fmt: skip


class Region(LittleEndianStructure):
    _fields_ = (("status", c_int32), ("missing", c_int32), ("total", c_double), ("range", c_int32 * 2),
                ("reject_code", c_char * 48), ("disc_count", c_uint32), ("reserved", c_uint32),
                ("discs", Disc * 6))  # fmt: skip


class Finding(LittleEndianStructure):
    _fields_ = (("code", c_char * 48), ("region", c_int32), ("reserved", c_uint32))


class Result(LittleEndianStructure):
    _fields_ = (("format", c_char * 48), ("path", c_char * 208))


class Report(LittleEndianStructure):
    _fields_ = (("struct_size", c_uint32), ("total_status", c_int32), ("total", c_double), ("range", c_int32 * 2),
                ("within_budget", c_int32), ("reserved", c_uint32), ("elapsed_ms", c_double),
                ("answer_bytes", c_uint64), ("study_instance_uid", c_char * 72), ("regions", Region * 2),
                ("warning_count", c_uint32), ("reject_count", c_uint32), ("warnings", Finding * 32),
                ("rejects", Finding * 16), ("result_count", c_uint32), ("reserved2", c_uint32),
                ("results", Result * 16))  # fmt: skip


class SentAnswer(LittleEndianStructure):
    _fields_ = (("problem", Problem), ("report", Report))
