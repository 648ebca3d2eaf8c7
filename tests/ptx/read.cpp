// SPDX-License-Identifier: MPL-2.0
//
// Reading PTX as NVRTC lays it out: a statement a line, an entry's body between braces that have lines of their own.
#include "ptx.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>

namespace ptx {

// What registers begin with, but for those that begin with something.
constexpr uint64_t NONSENSE = 0xcbcbcbcbcbcbcbcb;

static std::string trimmed(const std::string& text) {
    const size_t begin = text.find_first_not_of(" \t"), end = text.find_last_not_of(" \t");
    return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

static bool begins(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

// At commas, but for those between braces or brackets.
static std::vector<std::string> split_operands(const std::string& text) {
    std::vector<std::string> operands;
    size_t begin = 0;
    int depth = 0;
    for (size_t at = 0; at <= text.size(); ++at) {
        const char here = at == text.size() ? ',' : text[at];
        depth += (here == '{' || here == '[') - (here == '}' || here == ']');
        if (here != ',' || (depth != 0 && at != text.size())) continue;
        const std::string operand = trimmed(text.substr(begin, at - begin));
        if (!operand.empty()) operands.push_back(operand);
        begin = at + 1;
    }
    return operands;
}

// The number between brackets at the end of a declaration, or 0.
static size_t elements(const std::string& declaration) {
    const size_t bracket = declaration.find('[');
    return bracket == std::string::npos ? 0 : std::strtoull(declaration.c_str() + bracket + 1, nullptr, 10);
}

static size_t alignment(const std::string& declaration) {
    const size_t at = declaration.find(".align ");
    return at == std::string::npos ? 1 : std::strtoull(declaration.c_str() + at + 7, nullptr, 10);
}

// Bytes of an element: `.b8` has one.
static size_t element_bytes(const std::string& declaration) {
    for (const char* type : {".b", ".u", ".s", ".f"})
        for (const int bits : {8, 16, 32, 64})
            if (declaration.find(type + std::to_string(bits) + " ") != std::string::npos) return static_cast<size_t>(bits) / 8;
    return 0;
}

// The name that a declaration declares: what comes last, without brackets.
static std::string declared(const std::string& declaration) {
    const std::string whole = declaration.substr(0, declaration.find_first_of("[;"));
    return trimmed(whole.substr(whole.find_last_of(" \t") + 1));
}

// The reader of one entry.
class Reader {
public:
    explicit Reader(const std::string& name) {
        entry_.name = name;
        entry_.registers.assign(SPECIALS, NONSENSE);
        numbers_ = {{"%tid.x", THREAD}, {"%ntid.x", THREADS}, {"%ctaid.x", BLOCK}, {"%nctaid.x", BLOCKS}};
    }

    void line(const std::string& text, uint32_t number) {
        number_ = number;
        std::string statement = trimmed(text.substr(0, text.find("//")));
        if (statement.empty()) return;
        if (statement.back() == ':') {
            labels_[statement.substr(0, statement.size() - 1)] = static_cast<uint32_t>(entry_.code.size());
            return;
        }
        if (begins(statement, ".param")) return parameter(statement);
        if (begins(statement, ".maxntid")) {
            entry_.most_threads = static_cast<uint32_t>(std::strtoul(statement.c_str() + 9, nullptr, 10));
            return;
        }
        if (statement == ")" || begins(statement, ".minnctapersm")) return;
        if (statement.back() != ';') refuse("is not one statement: " + statement);
        statement.pop_back();
        if (begins(statement, ".shared")) return shared(statement);
        if (begins(statement, ".reg") || begins(statement, ".pragma")) return;
        if (statement[0] == '.') refuse("declares what is not known here: " + statement);
        instruction(statement);
    }

    // Dynamic shared memory, which is declared outside of entries.
    void dynamic(const std::string& name) { entry_.dynamic.push_back(symbol(name)); }

    Entry finished() {
        for (const auto& [instruction, label] : jumps_) {
            const auto found = labels_.find(label);
            if (found == labels_.end()) refuse("goes to " + label + ", which is nowhere");
            entry_.code[instruction].target = found->second;
        }
        // Whoever comes to the end has ended.
        Instruction last;
        last.execute = find("ret");
        last.line = number_;
        entry_.code.push_back(last);
        return std::move(entry_);
    }

private:
    [[noreturn]] void refuse(const std::string& what) const {
        throw Mistake(entry_.name + ", line " + std::to_string(number_) + ": " + what);
    }

    void parameter(const std::string& declaration) {
        if (entry_.argument_bytes != 0) refuse("a kernel with two parameters is not executed here");
        const size_t count = elements(declaration);
        entry_.argument_bytes = element_bytes(declaration) * (count == 0 ? 1 : count);
        numbers_[declared(declaration)] = ARGUMENT;
    }

    void shared(const std::string& declaration) {
        const size_t align = alignment(declaration), count = elements(declaration);
        const size_t begin = (entry_.shared_bytes + align - 1) / align * align;
        entry_.shared.emplace_back(symbol(declared(declaration)), static_cast<uint32_t>(begin));
        entry_.shared_bytes = static_cast<uint32_t>(begin + element_bytes(declaration) * (count == 0 ? 1 : count));
    }

    uint32_t added(uint64_t begins_with) {
        entry_.registers.push_back(begins_with);
        return static_cast<uint32_t>(entry_.registers.size() - 1);
    }

    uint32_t symbol(const std::string& name) {
        const auto [found, is_new] = numbers_.emplace(name, 0);
        if (is_new) found->second = added(NONSENSE);
        return found->second;
    }

    // The register of an operand, which is a register, a known symbol or a constant.
    uint32_t operand(const std::string& text) {
        const auto known = numbers_.find(text);
        if (known != numbers_.end()) return known->second;
        if (text[0] == '%') {
            if (text.find('.') != std::string::npos) refuse(text + " is not known here");
            return symbol(text);
        }
        const auto constant = [&](uint64_t bits) {
            const auto [found, is_new] = constants_.emplace(bits, 0);
            if (is_new) found->second = added(bits);
            return found->second;
        };
        if (begins(text, "0f") || begins(text, "0d")) return constant(std::strtoull(text.c_str() + 2, nullptr, 16));
        char* end;
        const int64_t value = text[0] == '-' ? std::strtoll(text.c_str(), &end, 0)
                                             : static_cast<int64_t>(std::strtoull(text.c_str(), &end, 0));
        if (end == text.c_str() || *end != '\0') refuse(text + " is neither a register nor a constant, nor declared");
        return constant(static_cast<uint64_t>(value));
    }

    // `{%r1, %r2}`, or a single one.
    std::vector<uint32_t> several(const std::string& text) {
        std::vector<uint32_t> numbers;
        const bool braces = text[0] == '{';
        for (const std::string& one : split_operands(braces ? text.substr(1, text.size() - 2) : text))
            numbers.push_back(operand(one));
        if (numbers.empty() || numbers.size() > 4) refuse(text + " has too few or too many elements");
        return numbers;
    }

    // `[%rd1+-8]`.
    void address(Instruction& of, const std::string& text) {
        if (text.size() < 3 || text.front() != '[' || text.back() != ']') refuse(text + " is no address");
        const std::string inner = text.substr(1, text.size() - 2);
        const size_t sign = inner.find('+');
        of.from[0] = operand(trimmed(inner.substr(0, sign)));
        if (sign != std::string::npos) of.offset = std::strtoll(inner.c_str() + sign + 1, nullptr, 0);
    }

    void instruction(const std::string& statement) {
        std::string rest = statement, guard;
        if (rest[0] == '@') {
            const size_t space = rest.find_first_of(" \t");
            guard = rest.substr(1, space - 1);
            rest = trimmed(rest.substr(space));
        }
        const size_t space = std::min(rest.find_first_of(" \t"), rest.size());
        std::string opcode = rest.substr(0, space);
        const std::vector<std::string> operands = split_operands(rest.substr(space));
        Instruction made;
        made.line = number_;
        const auto wants = [&](size_t count) {
            if (operands.size() != count) refuse("has not " + std::to_string(count) + " operands: " + statement);
        };
        const auto to = [&](const std::vector<uint32_t>& numbers) { std::copy(numbers.begin(), numbers.end(), made.to); };
        const auto from = [&](const std::vector<uint32_t>& numbers, size_t place) {
            std::copy(numbers.begin(), numbers.end(), made.from + place);
        };
        if (begins(opcode, "bra")) {
            wants(1);
            jumps_.emplace_back(entry_.code.size(), operands[0]);
            if (!guard.empty()) {
                const bool negated = guard[0] == '!';
                opcode = negated ? "bra.unless" : "bra.if";
                made.from[0] = operand(guard.substr(negated ? 1 : 0));
                guard.clear();
            }
        } else if (begins(opcode, "ld.")) {
            wants(2);
            to(several(operands[0]));
            address(made, operands[1]);
        } else if (begins(opcode, "st.") || begins(opcode, "red.")) {
            wants(2);
            address(made, operands[0]);
            from(several(operands[1]), 1);
        } else if (begins(opcode, "atom.")) {
            wants(3);
            to({operand(operands[0])});
            address(made, operands[1]);
            from({operand(operands[2])}, 1);
        } else if (opcode == "bar.sync") {
            wants(1);
            if (operands[0] != "0") refuse("of a block's barriers only the first is known here");
        } else if (begins(opcode, "mov.") && operands.size() == 2 && operands[1][0] == '{') {
            opcode += ".joined";
            to({operand(operands[0])});
            from(several(operands[1]), 0);
        } else if (begins(opcode, "mov.") && operands.size() == 2 && operands[0][0] == '{') {
            opcode += ".split";
            to(several(operands[0]));
            from({operand(operands[1])}, 0);
        } else if (operands.size() == 2 && (operands[1] == "%globaltimer" || operands[1] == "%clock64")) {
            opcode += "." + operands[1].substr(1);
            to({operand(operands[0])});
        } else if (!operands.empty()) {
            if (operands.size() > 5) refuse("has too many operands: " + statement);
            to({operand(operands[0])});
            for (size_t place = 1; place < operands.size(); ++place) made.from[place - 1] = operand(operands[place]);
        }
        if (!guard.empty()) refuse("guards what is no branch: " + statement);
        made.execute = find(opcode);
        if (made.execute == nullptr) refuse(opcode + " is not executed here");
        entry_.code.push_back(made);
    }

    Entry entry_;
    uint32_t number_ = 0;
    std::map<std::string, uint32_t> numbers_; // of registers and symbols
    std::map<uint64_t, uint32_t> constants_;
    std::map<std::string, uint32_t> labels_;
    std::vector<std::pair<size_t, std::string>> jumps_;
};

// Where the name of an entry begins, from a place on, or npos.
static size_t next_name(const std::string& text, size_t from) {
    static const std::string ENTRY = "\n.visible .entry ";
    const size_t at = text.find(ENTRY, from);
    return at == std::string::npos ? at : at + ENTRY.size();
}

static std::string name_at(const std::string& text, size_t begin) {
    return trimmed(text.substr(begin, text.find('(', begin) - begin));
}

std::vector<std::string> names(const std::string& text) {
    std::vector<std::string> found;
    for (size_t at = next_name(text, 0); at != std::string::npos; at = next_name(text, at))
        found.push_back(name_at(text, at));
    return found;
}

Entry read(const std::string& text, const std::string& name) {
    Reader reader(name);
    size_t begin = next_name(text, 0);
    while (begin != std::string::npos && name_at(text, begin) != name) begin = next_name(text, begin);
    if (begin == std::string::npos) throw Mistake(name + ": the text has no such kernel");
    for (size_t at = text.find("\n.extern .shared"); at < begin; at = text.find("\n.extern .shared", at + 1))
        reader.dynamic(declared(text.substr(at + 1, text.find('\n', at + 1) - at - 1)));
    auto number = static_cast<uint32_t>(1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(begin), '\n'));
    bool is_in_body = false;
    // The line of the name is over with it.
    for (size_t end = text.find('\n', begin); end != std::string::npos;) {
        const size_t next = std::min(text.find('\n', end + 1), text.size());
        const std::string line = text.substr(end + 1, next - end - 1);
        end = next == text.size() ? std::string::npos : next;
        ++number;
        if (line == "{" && !is_in_body) is_in_body = true;
        else if (line == "}" && is_in_body) return reader.finished();
        else reader.line(line, number);
    }
    throw Mistake(name + ": the text ends before the kernel does");
}

} // namespace ptx
