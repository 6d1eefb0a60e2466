// mma.sync and ldmatrix: fragments as the PTX ISA lays them out over the lanes. Lane l is in group l / 4, at place l % 4 in it.
#include "exec_float.h"
#include "exec_memory.h"
#include "ptx_decode.h"

namespace emulator {

namespace {

enum Element : uint8_t { kF16, kBF16, kTF32 };

template <int E> float elementOf(uint32_t bits) {
  if (E == kBF16) return toFloat(bits << 16);
  if (E == kF16) return halfToFloat(uint16_t(bits));
  return toFloat(bits & 0xffffe000u);  // what follows 10 bits of mantissa is not looked at
}

// m16n8kK with fp32 sums. The products of a result are summed in order of k in fp32, then the accumulator is added; the hardware's order
// and its rounding within a block of products are its own.
template <int E, int K> void mma(Warp& w, const Instruction& in, uint32_t) {
  constexpr int per = E == kTF32 ? 1 : 2;              // elements of a register
  constexpr int half = per * 4;                        // elements of k that one register of all lanes covers
  constexpr int ra = 16 * K / (32 * per), rb = 8 * K / (32 * per);
  const uint32_t* e = &w.worker->function->extra[in.extra];
  const uint32_t *d = e, *ae = e + 4, *be = ae + ra, *c = be + rb;
  alignas(64) float a[16][K], b[K][8], s[16][8] = {};
  for (int r = 0; r < ra; r++) {
    const uint32_t* from = w.at<uint32_t>(ae[r]);
    for (uint32_t lane = 0; lane < kLanes; lane++) {
      uint32_t row = lane / 4 + (r & 1) * 8, k = lane % 4 * per + uint32_t(r / 2) * half;
      for (int i = 0; i < per; i++) a[row][k + i] = elementOf<E>(per == 1 ? from[lane] : from[lane] >> (16 * i) & 0xffff);
    }
  }
  for (int r = 0; r < rb; r++) {
    const uint32_t* from = w.at<uint32_t>(be[r]);
    for (uint32_t lane = 0; lane < kLanes; lane++) {
      uint32_t k = lane % 4 * per + uint32_t(r) * half;
      for (int i = 0; i < per; i++) b[k + i][lane / 4] = elementOf<E>(per == 1 ? from[lane] : from[lane] >> (16 * i) & 0xffff);
    }
  }
  for (int row = 0; row < 16; row++)
    for (int k = 0; k < K; k++)
      for (int n = 0; n < 8; n++) s[row][n] += a[row][k] * b[k][n];
  // Results may lie where sums did: all are read before any is written.
  alignas(64) float results[4][kLanes];
  for (int r = 0; r < 4; r++) {
    const float* old = w.at<float>(c[r]);
    for (uint32_t lane = 0; lane < kLanes; lane++) results[r][lane] = canonical(old[lane] + s[lane / 4 + (r & 2) * 4][lane % 4 * 2 + (r & 1)]);
  }
  for (int r = 0; r < 4; r++) memcpy(w.at<float>(d[r]), results[r], sizeof results[r]);
}

void list(Decoder& d, size_t i, size_t count, Type type, bool destination) {
  const Operand& o = d.operand(i);
  bool single = count == 1 && o.kind == Operand::Name;
  if (!single && (o.kind != Operand::List || o.list.size() != count)) d.fail("operand " + std::to_string(i + 1) + " has " + std::to_string(count) + " registers");
  for (size_t k = 0; k < count; k++) {
    const Operand& one = single ? o : o.list[k];
    uint32_t r = destination ? d.destination(one, type) : d.source(one, type);
    d.function.extra.push_back(r);
  }
}

void decodeMma(Decoder& d) {
  d.need("sync");
  d.need("aligned");
  std::string_view shape = d.next();
  d.need("row");
  d.need("col");
  Type dt = d.takeType(), at = d.takeType(), bt = d.takeType(), ct = d.takeType();
  if (dt != Type::F32 || ct != Type::F32 || at != bt) d.fail("these types are not known");
  struct Form { const char* shape; Type type; Handler handler; size_t a, b; };
  static const Form forms[] = {{"m16n8k16", Type::BF16, mma<kBF16, 16>, 4, 2}, {"m16n8k16", Type::F16, mma<kF16, 16>, 4, 2}, {"m16n8k8", Type::BF16, mma<kBF16, 8>, 2, 1},
                               {"m16n8k8", Type::F16, mma<kF16, 8>, 2, 1},     {"m16n8k8", Type::TF32, mma<kTF32, 8>, 4, 2}, {"m16n8k4", Type::TF32, mma<kTF32, 4>, 2, 1}};
  for (const Form& f : forms) {
    if (shape != f.shape || at != f.type) continue;
    d.expect(4);
    d.in.extra = uint32_t(d.function.extra.size());
    list(d, 0, 4, Type::F32, true);
    list(d, 1, f.a, Type::B32, false);
    list(d, 2, f.b, Type::B32, false);
    list(d, 3, 4, Type::F32, false);
    d.in.handler = f.handler;
    d.in.control = Control::Aligned;
    return;
  }
  d.fail("this shape is not known");
}

// Row r of matrix i comes from the address of lane 8 i + r. Lane l gets the elements 2 (l % 4) and one more of row l / 4, or, transposed, of
// column l / 4.
constexpr uint8_t kTransposed = 1, kWideAddress = 2;
void ldmatrix(Warp& w, const Instruction& in, uint32_t) {
  const uint32_t* e = &w.worker->function->extra[in.extra];
  uint16_t rows[32][8];
  Place from[kLanes];
  uint32_t rowLanes = in.count == 4 ? kAll : (1u << (8 * in.count)) - 1;
  places(w, in, rowLanes, Space::Shared, in.flags & kWideAddress, 16, Access::Read, from);
  for (uint32_t i = 0; i < in.count * 8u; i++) memcpy(rows[i], from[i].data, 16);
  for (uint32_t m = 0; m < in.count; m++) {
    uint32_t* to = w.at<uint32_t>(e[m]);
    for (uint32_t lane = 0; lane < kLanes; lane++) {
      uint32_t across = lane % 4 * 2, down = lane / 4;
      uint32_t low = in.flags & kTransposed ? rows[m * 8 + across][down] : rows[m * 8 + down][across];
      uint32_t high = in.flags & kTransposed ? rows[m * 8 + across + 1][down] : rows[m * 8 + down][across + 1];
      to[lane] = high << 16 | low;
    }
  }
}
void decodeLdmatrix(Decoder& d) {
  d.need("sync");
  d.need("aligned");
  d.need("m8n8");
  uint32_t count = d.take("x1") ? 1 : d.take("x2") ? 2 : d.take("x4") ? 4 : 0;
  if (!count) d.fail("x1, x2 or x4 expected");
  bool transposed = d.take("trans");
  d.need("shared");
  d.need("b16");
  d.expect(2);
  d.in.count = uint8_t(count);
  d.in.extra = uint32_t(d.function.extra.size());
  list(d, 0, count, Type::B32, true);
  bool wide;
  d.address(1, Space::Shared, wide);
  d.in.flags = uint8_t((transposed ? kTransposed : 0) | (wide ? kWideAddress : 0));
  d.in.control = Control::Aligned;
  d.in.handler = ldmatrix;
}

}  // namespace

std::vector<Opcode> matrixOpcodes() { return {{"mma", decodeMma}, {"ldmatrix", decodeLdmatrix}}; }

}  // namespace emulator
