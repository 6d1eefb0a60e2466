// Attention, its gradients and attention over a cache for heads up to 256 wide, fp32 and bf16: see attention_tiles.cuh (tiles, shared memory, traffic).
#include "attention_tiles.cuh"

static __shared__ __attribute__((aligned(16))) float shared[Sizes<false>::ALL];

NL_KERNEL(256) attention_forward_256_f32(AttentionArgs a) { attend<float, 4, 4, false>(a, shared); }
NL_KERNEL(256) attention_query_grad_256_f32(AttentionArgs a) { queryGradients<float, 4, 4, false>(a, shared); }
NL_KERNEL(256) attention_key_grad_256_f32(AttentionArgs a) { keyGradients<float, 4, 4, false>(a, shared); }
NL_KERNEL(256) cached_attention_tile_256_f32(AttentionArgs a) { attendCached<float, 4, 4>(a, shared); }
NL_KERNEL(256) attention_forward_256_bf16(AttentionArgs a) { attend<bf16, 4, 4, false>(a, shared); }
NL_KERNEL(256) attention_query_grad_256_bf16(AttentionArgs a) { queryGradients<bf16, 4, 4, false>(a, shared); }
NL_KERNEL(256) attention_key_grad_256_bf16(AttentionArgs a) { keyGradients<bf16, 4, 4, false>(a, shared); }
NL_KERNEL(256) cached_attention_tile_256_bf16(AttentionArgs a) { attendCached<bf16, 4, 4>(a, shared); }
