// Attention, its gradients and attention over a cache for heads up to 32 wide, fp32: see attention_tiles.cuh (tiles, shared memory, traffic).
#include "attention_tiles.cuh"

static __shared__ __attribute__((aligned(16))) float shared[Sizes<false>::ALL];

NL_KERNEL(256) attention_forward_32_f32(AttentionArgs a) { attend<float, 2, 1, false>(a, shared); }
NL_KERNEL(256) attention_query_grad_32_f32(AttentionArgs a) { queryGradients<float, 2, 1, false>(a, shared); }
NL_KERNEL(256) attention_key_grad_32_f32(AttentionArgs a) { keyGradients<float, 2, 1, false>(a, shared); }
