"""The examples of each language score a phantom study by a real service, with its own processes."""

from __future__ import annotations

import pytest
from pydicom import dcmread

from helpers.console_build import compile_c, run, sdk
from helpers.console_languages import MAKERS, call_example
from helpers.console_service import need_service, printed_grades, serving, serving_over_tcp
from spinescore.runtime import Scorer, load_study, radiograph_from_array
from spinescore.runtime.phantom import write_study
from spinescore.runtime.study import REGIONS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_study(1_500_000, folder)
    return [folder / f"{region}.dcm" for region in REGIONS]


@pytest.fixture(scope="module")
def scorer():
    with Scorer.open("phantom-reference", "cpu", build="no") as opened:
        yield opened


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    need_service()
    with serving(tmp_path_factory.mktemp("service")) as address:
        yield address


def grades_of(report):
    return [
        (corner.site, -1 if corner.grade is None else corner.grade)
        for region in report.regions.values() for disc in region.discs for corner in disc.corners
    ]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return sdk(tmp_path_factory.mktemp("sdk"))


@pytest.mark.parametrize("language", MAKERS)
def test_a_phantom_study_is_scored(service, study, scorer, library, tmp_path, language):
    command = MAKERS[language](library, tmp_path)
    done = call_example(command, tmp_path, service, *study, "-o", tmp_path / "sr.dcm")
    assert (done.returncode, done.stderr) == (0, "")
    report = scorer.score(load_study(*study))
    assert printed_grades(done.stdout) == grades_of(report)
    assert f"mSASSS {report.total.value:g}, " in done.stdout
    assert dcmread(tmp_path / "sr.dcm").Modality == "SR"


def test_over_tcp_a_study_is_scored_with_the_token_alone(study, library, tmp_path):
    need_service()
    command = MAKERS["c"](library, tmp_path)
    with serving_over_tcp(tmp_path / "service") as (address, token):
        done = call_example(command, tmp_path, address, *study, token=token)
        wrong = call_example(command, tmp_path, address, *study, token="wrong")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(printed_grades(done.stdout)) == 24
    assert wrong.returncode == 1
    assert "token" in wrong.stderr


def test_frames_in_memory_are_scored(service, study, scorer, library, tmp_path):
    """The same pixels, without a header: the facing is determined from the picture."""
    command, words, radiographs = MAKERS["c"](library, tmp_path), [], []
    for region, path in zip(REGIONS, study, strict=True):
        pixels = dcmread(path).pixel_array
        (tmp_path / f"{region}.raw").write_bytes(pixels.astype("<u2").tobytes())
        words.append(f"{region}:{pixels.shape[0]}:{pixels.shape[1]}:{tmp_path / region}.raw")
        radiographs.append(radiograph_from_array(pixels.astype("uint16"), region=region, bits_stored=16))
    done = call_example(command, tmp_path, service, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert printed_grades(done.stdout) == grades_of(scorer.score(radiographs))


HEADED = """
#include "spinescore.h"
#include <stdio.h>
#include <stdlib.h>
static void *read_file(const char *name, size_t *bytes) {
    FILE *file = fopen(name, "rb");
    void *data = malloc(50000000);
    if (file == NULL || data == NULL) exit(1);
    *bytes = fread(data, 1, 50000000, file);
    (void)fclose(file);
    return data;
}
int main(int count, char **words) {
    spinescore_options options = SPINESCORE_OPTIONS_INIT;
    spinescore_view view = SPINESCORE_VIEW_INIT;
    spinescore_request request = SPINESCORE_REQUEST_INIT;
    spinescore_report report = SPINESCORE_REPORT_INIT;
    spinescore_problem problem = SPINESCORE_PROBLEM_INIT;
    spinescore_handle *handle;
    uint32_t i;
    if (count != 7) return 1;
    options.address = words[1];
    view.rows = (uint32_t)atoi(words[2]);
    view.columns = (uint32_t)atoi(words[3]);
    view.bits_allocated = 16;
    view.data = read_file(words[4], &view.data_bytes);
    view.header = read_file(words[5], &view.header_bytes);
    request.views = &view;
    request.view_count = 1;
    request.formats = "sr";
    if (spinescore_open(&options, &handle, &problem) == SPINESCORE_OK &&
        spinescore_score(handle, &request, &report, &problem) == SPINESCORE_OK)
        for (i = 0; i < report.result_count; i++)
            (void)spinescore_fetch_to_file(handle, report.results[i].path, words[6], &problem);
    (void)printf("%s %s", spinescore_status_name(problem.status), report.study_instance_uid);
    return 0;
}
"""


def test_a_frame_with_a_header_has_dicom_results(service, study, library, tmp_path):
    (tmp_path / "headed.c").write_text(HEADED, encoding="utf-8")
    program = compile_c("gcc", library, tmp_path / "headed", str(tmp_path / "headed.c"))
    ds = dcmread(study[0])
    (tmp_path / "frame.raw").write_bytes(ds.pixel_array.astype("<u2").tobytes())
    del ds.PixelData
    ds.save_as(tmp_path / "header.dcm")
    words = (str(ds.Rows), str(ds.Columns), *(str(tmp_path / name) for name in ("frame.raw", "header.dcm", "sr.dcm")))
    assert run([str(program), service, *words]) == f"ok {ds.StudyInstanceUID}"
    result = dcmread(tmp_path / "sr.dcm")
    assert (result.Modality, result.StudyInstanceUID) == ("SR", ds.StudyInstanceUID)
    assert ds.SOPInstanceUID in str(result)


def test_a_study_that_cannot_be_scored_says_why(service, library, tmp_path):
    command = MAKERS["c"](library, tmp_path)
    (tmp_path / "blank.raw").write_bytes(bytes(2 * 900 * 800))
    done = call_example(command, tmp_path, service, f"cervical:900:800:{tmp_path / 'blank.raw'}")
    assert done.returncode == 1
    assert done.stderr.startswith("blank: ")
    (tmp_path / "text.dcm").write_bytes(b"no DICOM")
    done = call_example(command, tmp_path, service, tmp_path / "text.dcm")
    assert done.returncode == 1
    assert done.stderr.startswith("not-dicom: ")


def test_the_service_answers_ready(service, library, tmp_path):
    source = tmp_path / "ready.c"
    source.write_text(
        '#include "spinescore.h"\n#include <stdio.h>\n'
        "int main(int count, char **words) {\n"
        "    spinescore_options options = {0};\n    spinescore_handle *handle;\n    int status;\n"
        "    options.struct_size = (uint32_t)sizeof options;\n    options.address = words[count - 1];\n"
        "    if (spinescore_open(&options, &handle, NULL) != SPINESCORE_OK) return 1;\n"
        "    status = spinescore_ready(handle, NULL);\n    spinescore_close(handle);\n"
        '    printf("%s\\n", spinescore_status_name(status));\n    return 0;\n}\n',
        encoding="utf-8",
    )
    program = compile_c("gcc", library, tmp_path / "ready", "-Wno-missing-field-initializers", str(source))
    assert run([str(program), service]) == "ok\n"
