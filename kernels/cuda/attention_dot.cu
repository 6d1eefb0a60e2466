// D of the backward of attention: dout · out for each query and head, a warp each. Traffic: both once.
#include "attention.cuh"

template<typename E> NL_INLINE void dots(const AttentionArgs& a)
{
    int64 count = (int64)a.rows * a.heads;
    for (int64 i = (int64)block() * (threads() >> 5) + warp(); i < count; i += (int64)blocks() * (threads() >> 5))
    {
        const E* x = (const E*)a.dout + i * a.headDim;
        const E* y = (const E*)a.out + i * a.headDim;
        float sum = 0.0f;
        for (int c = lane(); c < a.headDim; c += 32)
            sum = fma(widen(x[c]), widen(y[c]), sum);
        sum = warpSum(sum);
        if (lane() == 0)
            a.dot[i] = sum;
    }
}

NL_KERNEL(256) attention_dot_f32(AttentionArgs a) { dots<float>(a); }
NL_KERNEL(256) attention_dot_bf16(AttentionArgs a) { dots<bf16>(a); }
