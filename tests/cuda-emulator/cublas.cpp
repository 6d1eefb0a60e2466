// cuBLAS: matrix products, column-major, over the stand-in's device memory. Sums are in fp32 over k in order.
#include "cuda_api.h"
#include "queue.h"

#include <algorithm>
#include <cstring>

using namespace emulator;

namespace emulator {

struct Blas {
  CUstream stream = nullptr;
  int mathMode = 0, pointerMode = 0, atomics = 0;
  CUdeviceptr workspace = 0;
  size_t workspaceBytes = 0;
};

namespace {

enum : int { Success = 0, NotInitialized = 1, InvalidValue = 7, ExecutionFailed = 13, NotSupported = 15 };
enum : int { R32F = 0, R16F = 2, R16BF = 14 };
enum : int { Compute32F = 68, Compute32FPedantic = 69, Fast16F = 74, Fast16BF = 75, FastTF32 = 77 };
enum : int { ModePedantic = 2, ModeTF32 = 3 };

auto& handles = *new std::set<Blas*>();  // never destroyed, like the machine

uint32_t bitsOf(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}
float floatOf(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

float widenHalf(uint16_t h) {
  uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return floatOf(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return floatOf(sign | (exponent + 112) << 23 | mantissa << 13);
  float v = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -v : v;
}

uint16_t narrowHalf(float v) {
  uint32_t bits = bitsOf(v), sign = bits >> 16 & 0x8000u;
  uint32_t size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (size >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (size < 0x38800000u) {  // subnormal: the sum leaves the rounded mantissa in the low bits
    float shifted = floatOf(size) + 0.5f;
    return static_cast<uint16_t>(sign | (bitsOf(shifted) - 0x3f000000u));
  }
  uint32_t rounded = size + 0xfffu + (size >> 13 & 1u);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000u) >> 13);
}

uint16_t narrowBrain(float v) {
  uint32_t bits = bitsOf(v);
  return static_cast<uint16_t>(v == v ? (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16 : bits >> 16 | 0x40u);
}

uint64_t sizeOf(int type) { return type == R32F ? 4 : 2; }

float read(const uint8_t* at, int type) {
  if (type == R32F) {
    float v;
    std::memcpy(&v, at, 4);
    return v;
  }
  uint16_t h;
  std::memcpy(&h, at, 2);
  return type == R16BF ? floatOf(static_cast<uint32_t>(h) << 16) : widenHalf(h);
}

void write(uint8_t* at, int type, float v) {
  if (type == R32F) {
    std::memcpy(at, &v, 4);
    return;
  }
  uint16_t h = type == R16BF ? narrowBrain(v) : narrowHalf(v);
  std::memcpy(at, &h, 2);
}

// Round to nearest, ties away from zero, as the tensor cores' conversion does.
float toTF32(float v) {
  uint32_t bits = bitsOf(v);
  return (bits & 0x7f800000u) == 0x7f800000u ? v : floatOf((bits + 0x1000u) & ~0x1fffu);
}

struct Operand {
  CUdeviceptr at;
  int type;
  int64_t ld;
  bool turned;
};

struct Product {
  int m, n, k;
  Operand a, b, c;
  bool tf32;
};

void requireAligned(const Operand& o, const char* name) {
  if (o.at % sizeOf(o.type) != 0) throw Fault(std::string("operand ") + name + " is misaligned: its address is no multiple of its element");
}

// [rows, columns] of op(operand) as floats, column-major without gaps; every byte of it must have been written.
std::vector<float> gather(Machine& m, const Operand& o, int64_t rows, int64_t columns, const char* name) {
  requireAligned(o, name);
  int64_t storedRows = o.turned ? columns : rows, storedColumns = o.turned ? rows : columns;
  uint64_t size = sizeOf(o.type);
  Allocation& held = m.memory.find(o.at, ((storedColumns - 1) * o.ld + storedRows) * size);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (int64_t j = 0; j < storedColumns; j++) {
    uint64_t at = o.at + j * o.ld * size;
    if (m.checked) m.memory.requireInitialised(held, at, storedRows * size, name);
    const uint8_t* from = held.data + (at - held.base);
    if (o.turned)
      for (int64_t i = 0; i < storedRows; i++) values[j + i * rows] = read(from + i * size, o.type);
    else
      for (int64_t i = 0; i < storedRows; i++) values[i + j * rows] = read(from + i * size, o.type);
  }
  return values;
}

// sums[m, n] += a[m, k] · b[k, n], column-major; for each sum, k in order.
#if defined(__x86_64__)
__attribute__((target_clones("default", "avx2", "avx512f"), optimize("O3")))
#endif
void multiply(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* sums) {
  constexpr int64_t Rows = 256, Depth = 64;
  for (int64_t k0 = 0; k0 < k; k0 += Depth)
    for (int64_t i0 = 0; i0 < m; i0 += Rows) {
      int64_t rows = std::min(Rows, m - i0), depth = std::min(Depth, k - k0);
      for (int64_t j = 0; j < n; j++) {
        float* s = sums + i0 + j * m;
        for (int64_t p = k0; p < k0 + depth; p++) {
          float factor = b[p + j * k];
          const float* column = a + i0 + p * m;
          for (int64_t i = 0; i < rows; i++) s[i] += column[i] * factor;
        }
      }
    }
}

void checkApart(const Product& p, const Operand& o, int64_t rows, int64_t columns, const char* name) {
  int64_t storedRows = o.turned ? columns : rows, storedColumns = o.turned ? rows : columns;
  uint64_t end = o.at + ((storedColumns - 1) * o.ld + storedRows) * sizeOf(o.type);
  uint64_t endC = p.c.at + ((p.n - 1) * p.c.ld + p.m) * sizeOf(p.c.type);
  if (o.at < endC && p.c.at < end) throw Fault(std::string("operand ") + name + " overlaps the result C");
}

void product(Machine& m, const Product& p, float alpha, float beta) {
  if (p.m == 0 || p.n == 0) return;
  requireAligned(p.c, "C");
  uint64_t size = sizeOf(p.c.type);
  Allocation& held = m.memory.find(p.c.at, ((p.n - 1) * p.c.ld + p.m) * size);
  std::vector<float> sums(static_cast<size_t>(p.m) * p.n, 0.0f);
  if (p.k > 0 && alpha != 0.0f) {
    checkApart(p, p.a, p.m, p.k, "A");
    checkApart(p, p.b, p.k, p.n, "B");
    std::vector<float> a = gather(m, p.a, p.m, p.k, "operand A"), b = gather(m, p.b, p.k, p.n, "operand B");
    if (p.tf32) {
      for (float& v : a) v = toTF32(v);
      for (float& v : b) v = toTF32(v);
    }
    multiply(p.m, p.n, p.k, a.data(), b.data(), sums.data());
    m.counters.blasFlops += 2ull * p.m * p.n * p.k;
  }
  for (int64_t j = 0; j < p.n; j++) {
    uint64_t at = p.c.at + j * p.c.ld * size;
    // With beta 0, C is written without being read.
    if (beta != 0.0f && m.checked) m.memory.requireInitialised(held, at, p.m * size, "operand C");
    uint8_t* to = held.data + (at - held.base);
    for (int64_t i = 0; i < p.m; i++) {
      float v = alpha * sums[i + j * p.m];
      if (beta != 0.0f) v += beta * read(to + i * size, p.c.type);
      write(to + i * size, p.c.type, v);
    }
    std::memset(held.initialised + (at - held.base), 1, p.m * size);
  }
}

// Each operand once; C is read where it is added to.
uint64_t bytesOf(const Product& p, bool adds) {
  uint64_t m = p.m, n = p.n, k = p.k;
  return (m + n) * k * sizeOf(p.a.type) + m * n * sizeOf(p.c.type) * (adds ? 2 : 1);
}

// What products may do with the workspace: anything.
void spoilWorkspace(Machine& m, CUdeviceptr at, size_t bytes) {
  if (at != 0) m.memory.spoil(at, std::min<size_t>(bytes, 64 * 1024));
}

struct Scalars {
  bool onDevice;
  float alpha, beta;
  CUdeviceptr alphaAt, betaAt;
};

float readScalar(Machine& m, CUdeviceptr at) {
  Allocation& a = m.memory.find(at, 4);
  if (m.checked) m.memory.requireInitialised(a, at, 4, "a scalar");
  float v;
  std::memcpy(&v, a.data + (at - a.base), 4);
  return v;
}

// How the operands of each product of a batch are found.
struct Batch {
  int count = 1;
  int64_t strideA = 0, strideB = 0, strideC = 0;
  bool pointers = false;  // the operands' addresses lie in arrays on the device
};

CUdeviceptr readPointer(Machine& m, CUdeviceptr array, int64_t index) {
  CUdeviceptr at = array + index * 8;
  Allocation& a = m.memory.find(at, 8);
  if (m.checked) m.memory.requireInitialised(a, at, 8, "an array of operands");
  CUdeviceptr value;
  std::memcpy(&value, a.data + (at - a.base), 8);
  return value;
}

bool supported(int typeA, int typeB, int typeC) {
  if (typeA != typeB) return false;
  if (typeA == R32F) return typeC == R32F;
  return (typeA == R16F || typeA == R16BF) && (typeC == typeA || typeC == R32F);
}

int gemm(Blas* handle, int transA, int transB, int m, int n, int k, const void* alpha, CUdeviceptr a, int typeA, int64_t lda, CUdeviceptr b, int typeB,
         int64_t ldb, const void* beta, CUdeviceptr c, int typeC, int64_t ldc, int compute, const Batch& batch) {
  Machine& machine = emulator::machine();
  std::lock_guard<std::recursive_mutex> hold(machine.lock);
  if (handles.count(handle) == 0) return NotInitialized;
  auto refuse = [&](int code, const char* why) {
    machine.refusal = std::string("gemm: ") + why;
    return code;
  };
  if (transA < 0 || transA > 2 || transB < 0 || transB > 2) return refuse(InvalidValue, "no such transposition");
  if (m < 0 || n < 0 || k < 0 || batch.count < 0) return refuse(InvalidValue, "a size below 0");
  if (lda < std::max(1, transA == 0 ? m : k)) return refuse(InvalidValue, "lda is less than the rows of A");
  if (ldb < std::max(1, transB == 0 ? k : n)) return refuse(InvalidValue, "ldb is less than the rows of B");
  if (ldc < std::max(1, m)) return refuse(InvalidValue, "ldc is less than the rows of C");
  if (alpha == nullptr || beta == nullptr) return refuse(InvalidValue, "alpha or beta is null");
  if (!supported(typeA, typeB, typeC)) return refuse(NotSupported, "these types of A, B and C are not multiplied");
  bool tf32 = typeA == R32F && (compute == FastTF32 || (compute == Compute32F && handle->mathMode == ModeTF32));
  if (compute == FastTF32 && handle->mathMode != ModeTF32)
    return refuse(NotSupported, "CUBLAS_COMPUTE_32F_FAST_TF32 loses fp32's digits; the stand-in takes it only in CUBLAS_TF32_TENSOR_OP_MATH");
  if (compute != Compute32F && compute != Compute32FPedantic && compute != FastTF32) return refuse(NotSupported, "this type of computation is not supported");
  if (m == 0 || n == 0 || batch.count == 0) return Success;
  Stream* stream = machine.resolve(handle->stream);
  if (stream == nullptr) return refuse(ExecutionFailed, "the handle's stream was destroyed");
  Scalars scalars{handle->pointerMode == 1, 0, 0, 0, 0};
  if (scalars.onDevice) {
    scalars.alphaAt = reinterpret_cast<CUdeviceptr>(alpha);
    scalars.betaAt = reinterpret_cast<CUdeviceptr>(beta);
  } else {
    if (machine.memory.isDeviceAddress(reinterpret_cast<uint64_t>(alpha)) || machine.memory.isDeviceAddress(reinterpret_cast<uint64_t>(beta))) {
      machine.setFault("gemm: alpha or beta lies on the device, but the pointer mode is host");
      return InvalidValue;
    }
    std::memcpy(&scalars.alpha, alpha, 4);
    std::memcpy(&scalars.beta, beta, 4);
  }
  Product p{m, n, k, {a, typeA, lda, transA != 0}, {b, typeB, ldb, transB != 0}, {c, typeC, ldc, false}, tf32};
  CUdeviceptr workspace = handle->workspace;
  size_t workspaceBytes = handle->workspaceBytes;
  CUresult r = machine.enqueue(*stream, Work::Blas, "gemm", [=, &machine]() mutable {
    machine.counters.blasCalls++;
    machine.blasBytes += batch.count * bytesOf(p, scalars.onDevice || scalars.beta != 0.0f);
    if (machine.dry) return;
    spoilWorkspace(machine, workspace, workspaceBytes);
    float one = scalars.onDevice ? readScalar(machine, scalars.alphaAt) : scalars.alpha;
    float two = scalars.onDevice ? readScalar(machine, scalars.betaAt) : scalars.beta;
    for (int i = 0; i < batch.count; i++) {
      Product each = p;
      if (batch.pointers) {
        each.a.at = readPointer(machine, p.a.at, i);
        each.b.at = readPointer(machine, p.b.at, i);
        each.c.at = readPointer(machine, p.c.at, i);
      } else {
        each.a.at += static_cast<int64_t>(i * batch.strideA * static_cast<int64_t>(sizeOf(typeA)));
        each.b.at += static_cast<int64_t>(i * batch.strideB * static_cast<int64_t>(sizeOf(typeB)));
        each.c.at += static_cast<int64_t>(i * batch.strideC * static_cast<int64_t>(sizeOf(typeC)));
      }
      product(machine, each, one, two);
    }
  });
  return r == CUDA_SUCCESS ? Success : ExecutionFailed;
}

// A call on a handle.
template <typename F>
int on(Blas* handle, F&& work) {
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  return handles.count(handle) == 0 ? static_cast<int>(NotInitialized) : work(*handle);
}

}  // namespace

}  // namespace emulator

using cublasHandle_t = Blas*;
using cublasStatus_t = int;

extern "C" CUresult cuCtxGetCurrent(CUcontext* context);

NL_API cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (handle == nullptr) return InvalidValue;
  CUcontext current = nullptr;
  // cuBLAS itself would take the primary context; here a forgotten context is an error.
  if (cuCtxGetCurrent(&current) != CUDA_SUCCESS || current == nullptr) return NotInitialized;
  std::lock_guard<std::recursive_mutex> hold(machine().lock);
  *handle = new Blas();
  handles.insert(*handle);
  return Success;
}

NL_API cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  return on(handle, [&](Blas&) {
    handles.erase(handle);
    delete handle;
    return Success;
  });
}

NL_API cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, CUstream stream) {
  return on(handle, [&](Blas& b) -> int {
    if (machine().resolve(stream) == nullptr) return InvalidValue;
    b.stream = stream;
    b.workspace = 0;  // as cuBLAS does
    b.workspaceBytes = 0;
    return Success;
  });
}

NL_API cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, CUstream* stream) {
  return on(handle, [&](Blas& b) -> int {
    if (stream == nullptr) return InvalidValue;
    *stream = b.stream;
    return Success;
  });
}

NL_API cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, CUdeviceptr workspace, size_t bytes) {
  return on(handle, [&](Blas& b) -> int {
    if (workspace % 256 != 0) return InvalidValue;
    if (workspace != 0 && bytes != 0 && !machine().memory.whyNot(workspace, bytes).empty()) {
      machine().setFault("cublasSetWorkspace: " + machine().memory.whyNot(workspace, bytes));
      return InvalidValue;
    }
    b.workspace = bytes == 0 ? 0 : workspace;
    b.workspaceBytes = bytes;
    return Success;
  });
}

NL_API cublasStatus_t cublasSetMathMode(cublasHandle_t handle, int mode) {
  return on(handle, [&](Blas& b) -> int {
    if (mode < 0 || (mode & 0xf) > ModeTF32) return InvalidValue;
    b.mathMode = mode & 0xf;
    return Success;
  });
}

NL_API cublasStatus_t cublasGetMathMode(cublasHandle_t handle, int* mode) {
  return on(handle, [&](Blas& b) -> int {
    if (mode == nullptr) return InvalidValue;
    *mode = b.mathMode;
    return Success;
  });
}

NL_API cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, int mode) {
  return on(handle, [&](Blas& b) -> int {
    if (mode < 0 || mode > 1) return InvalidValue;
    b.pointerMode = mode;
    return Success;
  });
}

NL_API cublasStatus_t cublasSetAtomicsMode(cublasHandle_t handle, int mode) {
  return on(handle, [&](Blas& b) -> int {
    if (mode < 0 || mode > 1) return InvalidValue;
    b.atomics = mode;
    return Success;
  });
}

NL_API cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  if (version == nullptr) return InvalidValue;
  *version = 120400;
  return Success;
}

NL_API const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case Success: return "CUBLAS_STATUS_SUCCESS";
    case NotInitialized: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case InvalidValue: return "CUBLAS_STATUS_INVALID_VALUE";
    case ExecutionFailed: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case NotSupported: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "CUBLAS_STATUS_UNKNOWN";
  }
}
NL_API const char* cublasGetStatusString(cublasStatus_t status) { return cublasGetStatusName(status); }

NL_API cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, int transA, int transB, int m, int n, int k, const float* alpha, CUdeviceptr a, int lda,
                                     CUdeviceptr b, int ldb, const float* beta, CUdeviceptr c, int ldc) {
  return gemm(handle, transA, transB, m, n, k, alpha, a, R32F, lda, b, R32F, ldb, beta, c, R32F, ldc, Compute32F, {});
}

NL_API cublasStatus_t cublasGemmEx(cublasHandle_t handle, int transA, int transB, int m, int n, int k, const void* alpha, CUdeviceptr a, int typeA, int lda,
                                   CUdeviceptr b, int typeB, int ldb, const void* beta, CUdeviceptr c, int typeC, int ldc, int compute, int) {
  return gemm(handle, transA, transB, m, n, k, alpha, a, typeA, lda, b, typeB, ldb, beta, c, typeC, ldc, compute, {});
}

NL_API cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, int transA, int transB, int64_t m, int64_t n, int64_t k, const void* alpha, CUdeviceptr a,
                                      int typeA, int64_t lda, CUdeviceptr b, int typeB, int64_t ldb, const void* beta, CUdeviceptr c, int typeC, int64_t ldc,
                                      int compute, int) {
  if (std::max({m, n, k}) > INT32_MAX || std::min({m, n, k}) < 0) return InvalidValue;
  return gemm(handle, transA, transB, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), alpha, a, typeA, lda, b, typeB, ldb, beta, c, typeC, ldc,
              compute, {});
}

NL_API cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, int transA, int transB, int m, int n, int k, const void* alpha, CUdeviceptr a,
                                                 int typeA, int lda, long long strideA, CUdeviceptr b, int typeB, int ldb, long long strideB,
                                                 const void* beta, CUdeviceptr c, int typeC, int ldc, long long strideC, int count, int compute, int) {
  Batch batch;
  batch.count = count;
  batch.strideA = strideA;
  batch.strideB = strideB;
  batch.strideC = strideC;
  return gemm(handle, transA, transB, m, n, k, alpha, a, typeA, lda, b, typeB, ldb, beta, c, typeC, ldc, compute, batch);
}

NL_API cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, int transA, int transB, int m, int n, int k, const void* alpha, CUdeviceptr a, int typeA,
                                          int lda, CUdeviceptr b, int typeB, int ldb, const void* beta, CUdeviceptr c, int typeC, int ldc, int count,
                                          int compute, int) {
  Batch batch;
  batch.count = count;
  batch.pointers = true;
  return gemm(handle, transA, transB, m, n, k, alpha, a, typeA, lda, b, typeB, ldb, beta, c, typeC, ldc, compute, batch);
}
