// Scores the DICOM files of one study by the service, and prints the total, the grades and the codes of warnings.
//
//     score_cpp ADDRESS FILE... [-o STRUCTURED_REPORT]
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "spinescore.hpp"

static void score(const char *address, const std::vector<spinescore_view> &views, const char *out) {
    const char *token = std::getenv("SPINESCORE_TOKEN");
    spinescore::Client client(address, token == nullptr ? "" : token);
    spinescore::Settings settings;
    settings.formats = out == nullptr ? "" : "sr";
    const spinescore::Report report = client.score(views, settings);
    for (const spinescore_region &region : report.fields.regions)
        for (uint32_t i = 0; i < region.disc_count; i++)
            for (const spinescore_corner &corner : region.discs[i].corners)
                std::cout << corner.site << ' ' << corner.grade << '\n';
    for (uint32_t i = 0; i < report.fields.warning_count && i < 32; i++)
        std::cout << "warning: " << report.fields.warnings[i].code << '\n';
    std::cout << "mSASSS " << report.fields.total << ", " << report.json.size() << " bytes of JSON\n";
    for (uint32_t i = 0; out != nullptr && i < report.fields.result_count; i++)
        if (std::strcmp(report.fields.results[i].format, "sr") == 0) {
            const std::vector<unsigned char> bytes = client.fetch(report.fields.results[i].path);
            std::ofstream file(out, std::ios::binary);
            file.write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        }
}

int main(int count, char **words) {
    std::vector<std::vector<char>> files;
    const char *out = nullptr;
    for (int i = 2; i < count; i++) {
        if (std::strcmp(words[i], "-o") == 0 && i + 1 < count) {
            out = words[++i];
            continue;
        }
        std::ifstream file(words[i], std::ios::binary);
        files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    std::vector<spinescore_view> views;
    for (const std::vector<char> &file : files) views.push_back(spinescore::dicom_view(file.data(), file.size()));
    if (views.empty()) {
        std::cerr << "score_cpp ADDRESS FILE... [-o STRUCTURED_REPORT]\n";
        return 2;
    }
    try {
        score(words[1], views, out);
    } catch (const spinescore::Error &error) {
        std::cerr << spinescore_status_name(error.status()) << ' ' << error.code() << ": " << error.what()
                  << "\n  next: " << error.next_step() << '\n';
        return 1;
    }
    return 0;
}
