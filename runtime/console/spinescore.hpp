/* spinescore.hpp: the C library for C++11 and later. A handle that closes itself, and exceptions instead of statuses.

   Link spinescore.c and spinescore_codes.c. Rules, units and fields are those of spinescore.h. */
#ifndef SPINESCORE_HPP
#define SPINESCORE_HPP

#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "spinescore.h"

namespace spinescore {

/* A struct of spinescore.h with its size set and everything else zero. */
template <class Struct> Struct make() {
    Struct made;
    std::memset(static_cast<void *>(&made), 0, sizeof made);
    made.struct_size = static_cast<uint32_t>(sizeof made);
    return made;
}

/* A call that did not end with SPINESCORE_OK. */
class Error : public std::runtime_error {
  public:
    explicit Error(const spinescore_problem &problem) : std::runtime_error(problem.message), problem_(problem) {}

    int status() const noexcept { return problem_.status; }
    std::string code() const { return problem_.code; }
    std::string next_step() const { return problem_.next_step; }
    const spinescore_problem &problem() const noexcept { return problem_; }

  private:
    spinescore_problem problem_;
};

/* A view of raw 16-bit pixels. The pixels and the texts that are set in it must live until the call returns. */
inline spinescore_view raw_view(const uint16_t *pixels, uint32_t rows, uint32_t columns, uint32_t bits_stored = 16,
                                std::size_t row_stride_bytes = 0) {
    spinescore_view view = make<spinescore_view>();
    const std::size_t row_bytes = static_cast<std::size_t>(columns) * 2;
    view.row_stride_bytes = row_stride_bytes == 0 ? row_bytes : row_stride_bytes;
    view.data = pixels;
    view.data_bytes = rows == 0 ? 0 : (static_cast<std::size_t>(rows) - 1) * view.row_stride_bytes + row_bytes;
    view.rows = rows;
    view.columns = columns;
    view.bits_allocated = 16;
    view.bits_stored = bits_stored;
    return view;
}

/* A view of the bytes of a DICOM file, which must live until the call returns. */
inline spinescore_view dicom_view(const void *data, std::size_t bytes) {
    spinescore_view view = make<spinescore_view>();
    view.data = data;
    view.data_bytes = bytes;
    return view;
}

/* How a study is scored. */
struct Settings {
    uint32_t budget_ms = 0; /* 0: none */
    bool strict = false;
    std::string formats; /* such as "sr,gsps" */
};

/* A report, and the JSON of the whole answer. */
struct Report {
    spinescore_report fields;
    std::string json;
};

/* A connection to the service. One thread at a time makes calls with it; `cancel` may come from any thread. */
class Client {
  public:
    explicit Client(const std::string &address, const std::string &token = std::string()) : handle_(nullptr) {
        spinescore_options options = make<spinescore_options>();
        options.address = address.c_str();
        options.token = token.empty() ? nullptr : token.c_str();
        open(options);
    }

    explicit Client(const spinescore_options &options) : handle_(nullptr) { open(options); }

    ~Client() { spinescore_close(handle_); }

    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;
    Client(Client &&other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
    Client &operator=(Client &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }

    /* Whether the service is ready to score. Throws Error if it cannot be reached. */
    bool ready() {
        spinescore_problem problem = make<spinescore_problem>();
        const int status = spinescore_ready(handle_, &problem);
        if (status != SPINESCORE_OK && status != SPINESCORE_BUSY) throw Error(problem);
        return status == SPINESCORE_OK;
    }

    /* Scores one study of 1 to 4 views. `answer_capacity` is the size of the buffer for the answer's JSON. */
    Report score(const std::vector<spinescore_view> &views, const Settings &settings = Settings(),
                 std::size_t answer_capacity = 1 << 20) {
        spinescore_problem problem = make<spinescore_problem>();
        spinescore_request request = make<spinescore_request>();
        Report report = {make<spinescore_report>(), std::string(answer_capacity, '\0')};
        request.views = views.data();
        request.view_count = static_cast<uint32_t>(views.size());
        request.budget_ms = settings.budget_ms;
        request.strict = settings.strict ? 1 : 0;
        request.formats = settings.formats.c_str();
        request.answer = &report.json[0];
        request.answer_capacity = answer_capacity;
        if (spinescore_score(handle_, &request, &report.fields, &problem) != SPINESCORE_OK) throw Error(problem);
        report.json.resize(static_cast<std::size_t>(report.fields.answer_bytes));
        return report;
    }

    /* The bytes of a result, whose path is in the report. Throws Error if it is larger than `most_bytes`. */
    std::vector<unsigned char> fetch(const std::string &path, std::size_t most_bytes = 64 << 20) {
        const std::size_t first_bytes = 1 << 20;
        std::vector<unsigned char> bytes(most_bytes < first_bytes ? most_bytes : first_bytes);
        for (;;) {
            spinescore_problem problem = make<spinescore_problem>();
            std::size_t size = 0;
            const int status = spinescore_fetch(handle_, path.c_str(), bytes.data(), bytes.size(), &size, &problem);
            if (status == SPINESCORE_OK) {
                bytes.resize(size);
                return bytes;
            }
            if (status != SPINESCORE_TOO_LARGE || bytes.size() >= most_bytes || size > most_bytes) throw Error(problem);
            bytes.resize(size > bytes.size() ? size : most_bytes);
        }
    }

    /* Writes a result to a file, whole or not at all. */
    void fetch_to_file(const std::string &path, const std::string &file) {
        spinescore_problem problem = make<spinescore_problem>();
        if (spinescore_fetch_to_file(handle_, path.c_str(), file.c_str(), &problem) != SPINESCORE_OK)
            throw Error(problem);
    }

    /* Ends the call that another thread is making. Returns false if there is none. */
    bool cancel() noexcept { return spinescore_cancel(handle_) != 0; }

  private:
    void open(const spinescore_options &options) {
        spinescore_problem problem = make<spinescore_problem>();
        if (spinescore_open(&options, &handle_, &problem) != SPINESCORE_OK) throw Error(problem);
    }

    spinescore_handle *handle_;
};

} // namespace spinescore

#endif
