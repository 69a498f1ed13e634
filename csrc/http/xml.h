// A strict reader of the little XML that S3 sends: elements, attributes that are skipped, text, the
// five entities and numbers of characters. Everything else (DOCTYPE, CDATA, comments) is refused.
// Texts and depth are bounded, so that no reply takes more memory than it has bytes.
#pragma once

#include <functional>
#include <string_view>

namespace s3io {

// Called at the end of each element with the names from the root to it, as "Error/Code", and the
// text directly in it.
using XmlVisitor = std::function<void(std::string_view path, std::string_view text)>;

// Whether a name may have it.
bool is_name_character(char one);

// Throws Error(data) with a text that says where, and not of which object.
void walk_xml(std::string_view xml, const XmlVisitor& visit);

}  // namespace s3io
