// out = x · mask / (1 - p), the mask from counters. Four values a thread: one call of Philox gives the words of all four. 2 values of traffic
// for each; the output may be the input.
#include "rows.cuh"

struct DropoutArgs
{
    const void* input;
    void* result;
    int64 count;
    Random random;
};

template<typename E> NL_INLINE void dropout(const DropoutArgs& a)
{
    const E* x = (const E*)a.input;
    E* y = (E*)a.result;
    bool whole = aligned(x, y);
    Random random = a.random;
    overPacks(a.count, NL_EACH {
        Pack v = load(x + i, left, whole);
        // Ten rounds for the four words of this counter: the compiler shares them.
#pragma unroll
        for (int j = 0; j < PACK; j++)
            v[j] *= dropoutFactor(random, (uint64)i + j);
        store(y + i, v, left, whole);
    });
}

NL_KERNEL(256) dropout_f32(DropoutArgs a) { dropout<float>(a); }
NL_KERNEL(256) dropout_bf16(DropoutArgs a) { dropout<bf16>(a); }
