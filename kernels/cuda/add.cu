// out = a + b. Four values a thread, grid-stride, no shared memory: 3 values of traffic for each. The output may be either input.
#include "rows.cuh"

struct AddArgs
{
    const void* first;
    const void* second;
    void* result;
    int64 count;
};

template<typename E> NL_INLINE void add(const AddArgs& a)
{
    const E* first = (const E*)a.first;
    const E* second = (const E*)a.second;
    E* result = (E*)a.result;
    bool whole = aligned(first, second, result);
    overPacks(a.count, NL_EACH {
        Pack x = load(first + i, left, whole), y = load(second + i, left, whole);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            x[j] += y[j];
        store(result + i, x, left, whole);
    });
}

NL_KERNEL(256) add_f32(AddArgs a) { add<float>(a); }
NL_KERNEL(256) add_bf16(AddArgs a) { add<bf16>(a); }
