// Tar archives, byte by byte. tests/test_tar_scan.py compares with archives of other programs.
#include "format/tar_chain.h"

#include <doctest/doctest.h>

#include "tar_archive.h"

namespace s3io::testing::tar_chain_test {
namespace {

const std::string kGnuMagic("ustar  \0", 8);
const std::string kData = "some data";

Caught refused(const std::string& archive) {
  const Caught error = caught([&] { found_in(archive); });
  CHECK(error.kind == ErrorKind::data);
  CHECK(error.says("a.tar: "));
  CHECK(error.text.size() < 1000);
  return error;
}

TEST_CASE("files of all formats are found, with their names and places") {
  const std::string v7 = tar_member({.type = '\0', .name = "a.jpg", .magic = ""}, kData);
  CHECK(found_in(v7 + kTarEnd) == Found{{"a.jpg", 512, 9}});
  const std::string ustar = tar_member({.name = "a.jpg", .prefix = "folder/of"}, kData);
  CHECK(found_in(ustar + v7 + kTarEnd) == Found{{"folder/of/a.jpg", 512, 9}, {"a.jpg", 1536, 9}});
  const std::string name(300, 'n');
  const std::string gnu = tar_member({.type = 'L', .name = "././@LongLink", .magic = kGnuMagic},
                                     name + std::string(1, '\0')) +
                          tar_member({.name = "nnn", .magic = kGnuMagic}, kData);
  CHECK(found_in(gnu + kTarEnd) == Found{{name, 1536, 9}});
  const std::string pax = pax_header(pax_record("mtime", "1.5") + pax_record("path", name)) +
                          tar_member({.name = "nnn", .prefix = "p"}, kData);
  CHECK(found_in(pax + kTarEnd) == Found{{name, 1536, 9}});
  // What lies where a prefix would be are times in GNU's format.
  CHECK(found_in(tar_member({.name = "a", .magic = kGnuMagic, .prefix = "0123456"}) + kTarEnd) ==
        Found{{"a", 512, 0}});
  CHECK(found_in(tar_member({.type = '7', .name = std::string(100, 'n')}, kData) + kTarEnd) ==
        Found{{std::string(100, 'n'), 512, 9}});
}

TEST_CASE("a pax header says something of one member, a global one of all behind") {
  const std::string member = tar_member({.name = "a", .prefix = "p"}, kData);
  const std::string only_link = pax_header(pax_record("linkpath", "nowhere"));
  CHECK(found_in(only_link + member + kTarEnd) == Found{{"p/a", 1536, 9}});
  const std::string size = pax_header(pax_record("size", "4"));
  CHECK(found_in(size + member + member + kTarEnd) == Found{{"p/a", 1536, 4}, {"p/a", 2560, 9}});
  const std::string global = pax_header(pax_record("path", "g"), 'g');
  const std::string own = pax_header(pax_record("path", "x/"));
  const std::string none = pax_header(pax_record("path", ""));
  CHECK(found_in(global + member + own + member + none + member + member + kTarEnd) ==
        Found{{"g", 1536, 9}, {"x", 3584, 9}, {"p/a", 5632, 9}, {"g", 6656, 9}});
  const std::string charset = pax_header(pax_record("hdrcharset", "BINARY") +
                                         pax_record("path", "\xff.jpg") + std::string(7, '\0'));
  CHECK(found_in(charset + member) == Found{{"\xff.jpg", 1536, 9}});
  CHECK(found_in(pax_header("") + member) == Found{{"p/a", 1024, 9}});
}

TEST_CASE("folders, devices, FIFOs and notes of GNU tar are no files") {
  for (const char type : {'3', '4', '5', '6'}) {  // their size is not of data
    const std::string other = tar_member({.type = type, .name = "other", .size = octal(99)});
    CHECK(found_in(other + tar_member({.name = "a"}, kData)) == Found{{"a", 1024, 9}});
  }
  for (const char type : {'V', 'D', 'N', 'Z'}) {
    const std::string other = tar_member({.type = type, .name = "other"}, kData);
    CHECK(found_in(other + tar_member({.name = "a"}, kData)) == Found{{"a", 1536, 9}});
  }
  const std::string folder = tar_member({.type = '\0', .name = "folder/", .magic = ""});
  CHECK(found_in(folder + tar_member({.name = "a"}, kData)) == Found{{"a", 1024, 9}});
}

TEST_CASE("a hard link is the last file of that name before it") {
  const std::string target(200, 't');
  const std::string archive =
      tar_member({.name = "a"}, kData) + tar_member({.name = "a"}, "other") +
      tar_member({.type = '1', .name = "b", .size = octal(9), .link = "./a"}) +
      tar_member({.type = '1', .name = "c", .link = "b"}) + pax_header(pax_record("path", target)) +
      tar_member({.name = "t"}, "x") +
      tar_member({.type = 'K', .name = "././@LongLink"}, target + std::string(1, '\0')) +
      tar_member({.type = '1', .name = "d", .link = "ttt"}) +
      pax_header(pax_record("linkpath", target)) + tar_member({.type = '1', .name = "e"});
  const Found found = found_in(archive + kTarEnd);
  REQUIRE(found.size() == 7);
  CHECK(found[2] == std::tuple{"b", 1536, 5});
  CHECK(found[3] == std::tuple{"c", 1536, 5});
  for (const size_t link : {5, 6}) CHECK(std::get<1>(found[link]) == std::get<1>(found[4]));
  const Caught error = refused(tar_member({.type = '1', .name = "b", .link = "a'\n"}));
  CHECK(error.says("member 'b' at byte 0 is a hard link to 'a\\x27\\n'"));
  CHECK(error.says("--hard-dereference"));
}

TEST_CASE("members whose bytes are not in the archive are refused by name") {
  const Caught link = refused(tar_member({.type = '2', .name = "b.jpg", .link = "a.jpg"}));
  CHECK(link.says("member 'b.jpg' at byte 0 is a symbolic link to 'a.jpg'"));
  CHECK(link.says("--dereference"));
  CHECK(
      refused(tar_member({.type = 'S', .name = "b.jpg"})).says("member 'b.jpg' at byte 0 is a sp"));
  const std::string pax =
      pax_header(pax_record("GNU.sparse.major", "1") + pax_record("GNU.sparse.name", "real.jpg"));
  const Caught sparse = refused(pax + tar_member({.name = "GNUSparseFile.1/real.jpg"}, kData));
  CHECK(sparse.says("member 'real.jpg' at byte 1024 is a sparse file"));
  CHECK(refused(tar_member({.type = 'M', .name = "b"}, kData)).says("volume"));
}

TEST_CASE("an archive ends with two blocks of zeros, with one, or with the object") {
  const std::string member = tar_member({.name = "a"}, kData);
  const Found found{{"a", 512, 9}};
  CHECK(found_in(member + kTarEnd) == found);
  const std::string record(9216, '\0');
  for (const std::string& zeros : {kTarEnd, kTarEnd + record, std::string(512, '\0')}) {
    const Caught joined = refused(member + zeros + member);
    const std::string place = std::to_string(1024 + zeros.size());
    CHECK(joined.says("follows at byte " + place));
    CHECK(joined.says("truncate --size=" + place));
  }
  const std::string much(HeaderChain::kMostBytes, '\0');
  CHECK(found_in(member + kTarEnd + much + member) == found);
  CHECK(found_in(member + kTarEnd + record + std::string(600, 'z') + member) == found);
  CHECK(found_in(member + std::string(512, '\0')) == found);
  CHECK(found_in(member + std::string(700, '\0')) == found);
  CHECK(found_in(member + std::string(3, '\0')) == found);
  CHECK(found_in(member) == found);
  CHECK(found_in(member + std::string(512, '\0') + std::string(512, 'z')) == found);
  CHECK(found_in(kTarEnd).empty());
  CHECK(refused(member + std::string(512, '\0') + member).says("only zeros at byte 1024"));
  CHECK(refused("").says("is empty"));
  for (const std::string& header :
       {pax_header(pax_record("path", "b")), tar_member({.type = 'L', .name = "x"}, "b")}) {
    CHECK(refused(member + header).says("the header at byte 1024 is of a member that follows"));
    CHECK(refused(member + header + kTarEnd).says("ends at byte 2048"));
  }
}

TEST_CASE("numbers are octal or base 256, and checksums of signed bytes are right, too") {
  const std::string huge = std::string("\x80\0\0\0", 4) + std::string("\0\0\0\0\0\0\0\x04", 8);
  const std::string data = "1234";
  CHECK(found_in(tar_member({.name = "a", .size = huge}, data)) == Found{{"a", 512, 4}});
  CHECK(found_in(tar_member({.name = "a", .size = "      4 "}, data)) == Found{{"a", 512, 4}});
  CHECK(found_in(tar_member({.name = "\xff", .has_signed_checksum = true})) ==
        Found{{"\xff", 512, 0}});
  for (const std::string& size :
       {std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfc", 12),
        std::string("\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12), std::string("12x"),
        std::string("-4"), std::string("0x4"), std::string("4 4")}) {
    CHECK(refused(tar_member({.name = "a", .size = size}, data)).says("is no number of bytes"));
  }
  const std::string member = tar_member({.name = "b"}, data);
  CHECK(refused(member + tar_member({.name = "a", .checksum_error = 1}))
            .says("the header at byte 1024 is damaged"));
  CHECK(refused(tar_member({.name = "a", .checksum_error = 1})).says("is no tar archive"));
}

TEST_CASE("sizes that cannot be are refused before memory is taken for them") {
  const std::string most(11, '\xff');
  const std::string largest = std::string("\x80\0\0\0\x7f", 5) + std::string(7, '\xff');
  for (const std::string& size : {largest, std::string("77777777777"), octal(513)}) {
    CHECK(refused(tar_member({.name = "a", .size = size}, kData)).says("bytes, but the object"));
  }
  const std::string size = pax_header(pax_record("size", "9223372036854775807"));
  CHECK(refused(size + tar_member({.name = "a"}, kData)).says("was cut off"));
  CHECK(refused(tar_member({.type = 'x', .name = "x", .size = octal(1 << 21)}, kData))
            .says("more than 1048576"));
  CHECK(refused(tar_member({.type = 'L', .name = "x", .size = octal(5000)}, kData))
            .says("more than 4097"));
  CHECK(refused(tar_member({.type = 'g', .name = "x", .size = octal(5000)}, kData))
            .says("was cut off"));
  const std::string name(4097, 'n');
  CHECK(refused(pax_header(pax_record("path", name)) + tar_member({.name = "a"}))
            .says("4097 bytes, more than 4096"));
  const std::string long_name(4096, 'n');
  CHECK(found_in(pax_header(pax_record("path", long_name)) + tar_member({.name = "a"})).size() ==
        1);
}

TEST_CASE("damaged pax records are refused") {
  const std::string member = tar_member({.name = "a"}, kData);
  for (const std::string& records :
       {std::string("x path=b\n"), std::string("9999 path=b\n"), std::string("8 path=b\n"),
        std::string("99999999999999999999999 path=b\n"), std::string("0 path=b\n"),
        std::string("7 path\n"), std::string("5 =b\n"), std::string("10 path=b "),
        pax_record("size", "-1"), pax_record("size", "1x"),
        pax_record("size", "99999999999999999999"), pax_record("path", std::string("a\0b", 3)),
        std::string("-10 path=b\n")}) {
    CAPTURE(records);
    CHECK(refused(pax_header(records) + member).says("the pax header at byte 0 is damaged"));
  }
  const std::string once = pax_header(pax_record("path", "b"));
  CHECK(refused(once + once + member).says("second"));
  const std::string name = tar_member({.type = 'L', .name = "x"}, "b");
  CHECK(refused(name + name + member).says("second"));
}

TEST_CASE("files that are no archives are named, with what to do") {
  const std::vector<std::pair<std::string, std::string>> kinds{
      {"\x1f\x8b", "gzip"},
      {"\x28\xb5\x2f\xfd", "zstd"},
      {"BZh9", "bzip2"},
      {std::string("\xfd"
                   "7zXZ\0",
                   6),
       "xz"},
      {"\x04\x22\x4d\x18", "lz4"},
      {"PK\x03\x04", "zip"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"}};
  for (const auto& [begin, text] : kinds) {
    CHECK(refused(begin).says(text));
    CHECK(refused(begin + std::string(2000, 'x')).says(text));
  }
  CHECK(refused(std::string(2000, 'x')).says("is no tar archive"));
  CHECK(refused("short").says("cut off"));
}

// An archive with something of everything.
std::string small_archive() {
  const std::string name(120, 'n');
  return pax_header(pax_record("mtime", "1.25") + pax_record("path", "key/0.jpg")) +
         tar_member({.name = "0.jpg"}, std::string(600, 'j')) +
         tar_member({.type = '5', .name = "folder/"}) +
         tar_member({.type = 'L', .name = "././@LongLink", .magic = kGnuMagic}, name) +
         tar_member({.name = "nnn", .magic = kGnuMagic}, "1") +
         tar_member({.type = '1', .name = "h", .link = "key/0.jpg"}) +
         tar_member({.name = "last", .prefix = "p"}, kData) + kTarEnd;
}

TEST_CASE("an archive that is cut at any byte is refused, or gives the members before the cut") {
  const std::string archive = small_archive();
  const Found all = found_in(archive);
  REQUIRE(all.size() == 4);
  // Where a member's data end, a cut cannot be seen: in their padding, and at the next header.
  const int64_t last_data = std::get<1>(all.back()) + std::get<2>(all.back());
  for (size_t cut = 0; cut < archive.size(); ++cut) {
    CAPTURE(cut);
    try {
      const Found found = found_in(archive.substr(0, cut));
      CHECK(std::equal(found.begin(), found.end(), all.begin()));
      const bool is_in_padding = static_cast<int64_t>(cut) >= last_data;
      const bool is_between = [&] {  // whole members, and perhaps padding that is cut off
        size_t end = 0;
        for (const auto& [name, offset, size] : found) {
          end = std::max(end, static_cast<size_t>(offset + size));
        }
        return cut >= end;
      }();
      CHECK(is_between);
      if (is_in_padding) CHECK(found == all);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::data);
      CHECK(static_cast<int64_t>(cut) < last_data);
    }
  }
}

TEST_CASE(
    "with any byte changed, an archive is refused, or other names and nothing else are found") {
  const std::string archive = small_archive();
  const Found all = found_in(archive);
  for (size_t at = 0; at < archive.size(); ++at) {
    for (const int mask : {0x01, 0x80, 0x20, 0xff}) {
      CAPTURE(at);
      CAPTURE(mask);
      std::string changed = archive;
      changed[at] = static_cast<char>(changed[at] ^ mask);
      try {
        const Found found = found_in(changed);
        // No checksum is over names that are data: pax records, and GNU's long names.
        REQUIRE(found.size() == all.size());
        for (size_t member = 0; member < all.size(); ++member) {
          CHECK(std::get<1>(found[member]) == std::get<1>(all[member]));
          CHECK(std::get<2>(found[member]) == std::get<2>(all[member]));
        }
      } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::data);
      }
    }
  }
}

}  // namespace
}  // namespace s3io::testing::tar_chain_test
