// Lists, errors and replies to uploads in XML, as S3 documents them; and what is none.
#include "http/s3_xml.h"

#include <doctest/doctest.h>

#include "http/xml.h"
#include "testing.h"

namespace s3io::testing::s3_xml_test {

// Of https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
const std::string kList = R"(<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
    <Name>quotes</Name>
    <Prefix>E</Prefix>
    <KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>
    <IsTruncated>true</IsTruncated>
    <NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>
    <Contents>
        <Key>ExampleObject.txt</Key>
        <LastModified>2013-09-17T18:07:53.000Z</LastModified>
        <ETag>"599bab3ed2c697f1d26842727561fd94"</ETag>
        <Size>857</Size>
        <Owner><ID>1</ID><DisplayName/></Owner>
        <StorageClass>REDUCED_REDUNDANCY</StorageClass>
    </Contents>
    <Contents><Key>E&amp;&lt;&#x20;&#10;&#x20AC;&#x1F340;+%2B</Key><ETag>&quot;ab-2&quot;</ETag><Size>0</Size></Contents>
</ListBucketResult>
)";

std::string with(const std::string& part, const std::string& other) {
  std::string text = kList;
  text.replace(text.find(part), part.size(), other);
  return text;
}

TEST_CASE("a page of a list has keys, sizes, ETags, and where it goes on") {
  const ListPage page = parse_list_page(kList, "E");
  CHECK(page.next_token == "1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=");
  REQUIRE(page.objects.size() == 2);
  CHECK(page.objects[0].key == "ExampleObject.txt");
  CHECK(page.objects[0].size_bytes == 857);
  CHECK(page.objects[0].etag == "599bab3ed2c697f1d26842727561fd94");
  CHECK(page.objects[1].key == "E&< \n\u20ac\U0001f340+%2B");
  CHECK(page.objects[1].etag == "ab-2");
  CHECK(parse_list_page(with("true", "false"), "E").next_token.empty());
  const std::string empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
  CHECK(parse_list_page(empty, "x").objects.empty());
  const std::string folder = with("<ETag>&quot;ab-2&quot;</ETag>", "<ETag>\"\"</ETag>");
  CHECK(caught([&] { parse_list_page(folder, "E"); }).kind == ErrorKind::data);
  std::string named = folder;
  named.replace(named.find("+%2B</Key>"), 4, "+%2B/");
  CHECK(parse_list_page(named, "E").objects[1].etag.empty());
}

TEST_CASE("a list that hides something, or has what nobody asked for, is refused") {
  std::string many = "<ListBucketResult><IsTruncated>false</IsTruncated>";
  for (int key = 0; key < 1001; ++key) {
    many +=
        "<Contents><Key>E" + std::to_string(key) + "</Key><Size>1</Size><ETag>e</ETag></Contents>";
  }
  const std::string etag = "<ETag>\"599bab3ed2c697f1d26842727561fd94\"</ETag>";
  const std::string key = "<Key>ExampleObject.txt</Key>";
  for (const std::string& text : {
           with("<IsTruncated>true</IsTruncated>", ""),
           with("true", "True"),
           with("1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=", ""),
           with(key, ""),
           with(key, "<Key>other</Key>"),
           with(key, "<Key>E" + std::string(1024, 'x') + "</Key>"),
           with("<Size>857</Size>", ""),
           with("<Size>857</Size>", "<Size>857</Size><Size>857</Size>"),
           with(key, key + key),
           with(etag, ""),
           with(etag, "<ETag/>"),
           with(etag, etag + etag),
           with(etag, "<ETag>W/\"599\"</ETag>"),
           with(etag, "<ETag>5&#10;9</ETag>"),
           with(etag, "<ETag>" + std::string(1025, 'e') + "</ETag>"),
           with("<IsTruncated>", "<IsTruncated>true</IsTruncated><IsTruncated>"),
           with("1ueGc", std::string(4096, 't')),
           with("857", "-1"),
           with("857", "8 57"),
           with("857", "9223372036854775808"),
           with("<Name>", "<EncodingType>url</EncodingType><Name>"),
           many + "</ListBucketResult>",
           std::string("<Error><Code>InternalError</Code></Error>"),
           std::string("<html><body/></html>"),
       }) {
    CAPTURE(text);
    CHECK(caught([&] { parse_list_page(text, "E"); }).kind == ErrorKind::data);
  }
}

TEST_CASE("what is cut off is refused at every byte, and is no memory error") {
  for (size_t size = 0; size + 1 < kList.size(); ++size) {
    CHECK(caught([&] { parse_list_page(kList.substr(0, size), "E"); }).kind == ErrorKind::data);
  }
}

TEST_CASE("XML beyond what S3 sends is refused") {
  const std::string deep = "<a><a><a><a><a><a><a><a><a>";
  for (const std::string& text : {
           std::string(),
           std::string("text"),
           std::string("<a>"),
           std::string("</a>"),
           std::string("<a></b>"),
           std::string("<a/><b/>"),
           std::string("<a/>x"),
           std::string("<a b></a>"),
           std::string("<a b=c></a>"),
           std::string("<a b='c></a>"),
           std::string("< a/>"),
           std::string("<a><!-- x --></a>"),
           std::string("<a><![CDATA[x]]></a>"),
           std::string("<!DOCTYPE a><a/>"),
           std::string("<?xml <a/>"),
           std::string("<a>&unknown;</a>"),
           std::string("<a>&#0;</a>"),
           std::string("<a>&#xD800;</a>"),
           std::string("<a>&#x110000;</a>"),
           std::string("<a>&#99999999999;</a>"),
           std::string("<a>&#x</a>;"),
           std::string("<a>&#-1;</a>"),
           std::string("<a>&amp</a>"),
           deep,
           "<a>" + std::string(9000, 'x') + "</a>",
           "<" + std::string(300, 'a') + "/>",
       }) {
    CAPTURE(text);
    CHECK(caught([&] { walk_xml(text, [](auto, auto) {}); }).kind == ErrorKind::data);
  }
}

TEST_CASE("elements are visited at their end, with the text directly in them") {
  std::string seen;
  walk_xml(" \n<a x='1' y=\"<&\" ><b>1</b> <c/>x<b>2 </b></a> ", [&](auto path, auto text) {
    seen += std::string(path) + "=" + std::string(text) + ";";
  });
  CHECK(seen == "a/b=1;a/c=;a/b=2 ;a=;");
}

TEST_CASE("errors are read as far as they can be") {
  const S3Error error = parse_s3_error(
      "<Error><Code>NoSuchKey</Code><Message>The resource you requested does not exist</Message>"
      "<Resource>/b/k</Resource><RequestId>4442587FB7D0A2F9</RequestId><Region>eu-west-1</Region></"
      "Error>");
  CHECK(error.code == "NoSuchKey");
  CHECK(error.message == "The resource you requested does not exist");
  CHECK(error.request_id == "4442587FB7D0A2F9");
  CHECK(error.region == "eu-west-1");
  CHECK(parse_s3_error("<Error><Code>SlowDown</Code><Mess").code == "SlowDown");
  for (const char* text : {"", "<html>no</html>", "<Error><Code>a b\n</Code></Error>", "503"}) {
    CHECK(parse_s3_error(text).code.empty());
  }
  CHECK(parse_s3_error("<Error><Message>" + std::string(5000, 'm') + "</Message></Error>")
            .message.size() == 300);
}

TEST_CASE("a page of uploads is read, or refused where something of it is missing or foreign") {
  // As in S3's documentation of ListMultipartUploads.
  const std::string page =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListMultipartUploadsResult "
      "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>bucket</Bucket><KeyMarker/>"
      "<UploadIdMarker></UploadIdMarker><NextKeyMarker>my-movie.m2ts</NextKeyMarker>"
      "<NextUploadIdMarker>YW55IG</NextUploadIdMarker><MaxUploads>3</MaxUploads>"
      "<IsTruncated>true</IsTruncated><Upload><Key>my-divisor</Key><UploadId>XMgbGlrZSB</UploadId>"
      "<Initiator><ID>arn:aws:iam::1</ID></Initiator><StorageClass>STANDARD</StorageClass>"
      "<Initiated>2010-11-10T20:48:33.000Z</Initiated></Upload>"
      "<Upload><Key>my-movie.m2ts</Key><UploadId>VXBsb2Fk</UploadId>"
      "<Initiated>2010-11-10T20:48:33Z</Initiated></Upload></ListMultipartUploadsResult>";
  const UploadPage read = parse_upload_page(page, "my-");
  REQUIRE(read.uploads.size() == 2);
  CHECK(read.uploads[0].key == "my-divisor");
  CHECK(read.uploads[0].id == "XMgbGlrZSB");
  CHECK(read.uploads[0].begun_s == 1'289'422'113);
  CHECK(read.uploads[1].begun_s == 1'289'422'113);
  CHECK(!read.is_last);
  CHECK(read.next_key == "my-movie.m2ts");
  CHECK(read.next_id == "YW55IG");
  const auto with = [&](const std::string& old, const std::string& text) {
    std::string changed = page;
    REQUIRE(changed.find(old) != std::string::npos);
    return changed.replace(changed.find(old), old.size(), text);
  };
  const std::string id = "<UploadId>XMgbGlrZSB</UploadId>";
  const std::string time = "2010-11-10T20:48:33.000Z";
  for (const std::string& text : {
           with("<IsTruncated>true</IsTruncated>", ""),
           with("<NextKeyMarker>my-movie.m2ts</NextKeyMarker>", ""),
           with("my-divisor", "your-divisor"),
           with("<Key>my-divisor</Key>", ""),
           with(id, ""),
           with(id, id + id),
           with(id, "<UploadId>" + std::string(1025, 'i') + "</UploadId>"),
           with("<Initiated>" + time + "</Initiated>", ""),
           with(time, "yesterday"),
           with(time, "2010-11-10T20:48:33"),
           with(time, "2010-11-31T20:48:33Z"),
           with(time, "2010-11-10T24:48:33Z"),
           with(time, "2010-11-10T20:48:33.Z"),
           with(time, "2010-11-10T20:48:3 Z"),
           with(time, "1910-11-10T20:48:33Z"),
           with("<Bucket>", "<EncodingType>url</EncodingType><Bucket>"),
           std::string("<ListBucketResult/>"),
       }) {
    CAPTURE(text);
    CHECK(caught([&] { parse_upload_page(text, "my-"); }).kind == ErrorKind::data);
  }
}

TEST_CASE("replies to uploads in parts, of which a success may be an error") {
  CHECK(parse_upload_id("<InitiateMultipartUploadResult><Bucket>b</Bucket><UploadId>VXBs</UploadId>"
                        "</InitiateMultipartUploadResult>") == "VXBs");
  CHECK(caught([] { parse_upload_id("<InitiateMultipartUploadResult/>"); }).kind ==
        ErrorKind::data);
  std::optional<S3Error> error;
  CHECK(parse_completed_upload("\n <CompleteMultipartUploadResult><ETag>\"3858-1\"</ETag>"
                               "</CompleteMultipartUploadResult>",
                               error) == "3858-1");
  CHECK_FALSE(error);
  parse_completed_upload("<Error><Code>InternalError</Code></Error>", error);
  REQUIRE(error);
  CHECK(error->code == "InternalError");
  CHECK(caught([&] { parse_completed_upload("<CompleteMultipartUploadResult/>", error); }).kind ==
        ErrorKind::data);
}

}  // namespace s3io::testing::s3_xml_test
