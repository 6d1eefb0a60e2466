// Weights and operands in another type: fp16, bf16 and GGUF's blocks to fp32, and all of these to bf16. A warp expands a group of 32 values,
// a lane each, so that writes are whole lines; reads are those of the stored type. No shared memory. Products and sums of the block formats
// are fp32 and never fused, so that the bits are those of the CPU (Checkpoints/GgufBlocks.cs).
#include "blocks.cuh"

struct ConvertArgs
{
    const void* source;
    void* target;
    int64 count; // of block types: whole blocks
};

template<typename S, typename T> NL_INLINE void convert(const ConvertArgs& a)
{
    for (int64 i = (int64)block() * threads() + thread(); i < a.count; i += (int64)blocks() * threads())
        ((T*)a.target)[i] = narrow<T>(widen(((const S*)a.source)[i]));
}

NL_KERNEL(256) convert_f16_f32(ConvertArgs a) { convert<fp16, float>(a); }
NL_KERNEL(256) convert_bf16_f32(ConvertArgs a) { convert<bf16, float>(a); }
NL_KERNEL(256) convert_f32_bf16(ConvertArgs a) { convert<float, bf16>(a); }
NL_KERNEL(256) convert_f16_bf16(ConvertArgs a) { convert<fp16, bf16>(a); }

template<typename Q, typename T> NL_INLINE void dequantize(const ConvertArgs& a)
{
    int64 groups = a.count >> 5, step = (int64)blocks() * threads() >> 5;
    for (int64 g = ((int64)block() * threads() + thread()) >> 5; g < groups; g += step)
    {
        const uint8* b = (const uint8*)a.source + g / Q::groups * Q::bytes;
        ((T*)a.target)[g * 32 + lane()] = narrow<T>(Q::value(b, (int)(g % Q::groups), lane()));
    }
}

#define NL_DEQUANTIZE(name, Q) \
    NL_KERNEL(256) convert_##name##_f32(ConvertArgs a) { dequantize<Q, float>(a); } \
    NL_KERNEL(256) convert_##name##_bf16(ConvertArgs a) { dequantize<Q, bf16>(a); }

NL_DEQUANTIZE(q8_0, Q8_0)
NL_DEQUANTIZE(q4_0, Q4_0)
NL_DEQUANTIZE(q4_1, Q4_1)
NL_DEQUANTIZE(q5_0, Q5_0)
NL_DEQUANTIZE(q5_1, Q5_1)
NL_DEQUANTIZE(q4_k, Q4_K)
NL_DEQUANTIZE(q5_k, Q5_K)
NL_DEQUANTIZE(q6_k, Q6_K)
