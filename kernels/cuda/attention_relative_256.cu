// Disentangled attention for heads 65 to 256 wide: see attention_relative.cu and attention_tiles.cuh. Shared memory 47 KiB.
#include "attention_tiles.cuh"

static __shared__ __attribute__((aligned(16))) float shared[Sizes<true>::ALL];

NL_KERNEL(256) attention_relative_forward_256_f32(AttentionArgs a) { attend<float, 2, 8, true>(a, shared); }
NL_KERNEL(256) attention_relative_forward_256_bf16(AttentionArgs a) { attend<bf16, 2, 8, true>(a, shared); }
NL_KERNEL(256) attention_relative_query_grad_256_f32(AttentionArgs a) { queryGradients<float, 2, 8, true>(a, shared); }
NL_KERNEL(256) attention_relative_query_grad_256_bf16(AttentionArgs a) { queryGradients<bf16, 2, 8, true>(a, shared); }
NL_KERNEL(256) attention_relative_key_grad_256_f32(AttentionArgs a) { keyGradients<float, 2, 8, true>(a, shared); }
NL_KERNEL(256) attention_relative_key_grad_256_bf16(AttentionArgs a) { keyGradients<bf16, 2, 8, true>(a, shared); }
