// Attention, its gradients and attention over a cache for heads up to 64 wide, fp32: see attention_tiles.cuh (tiles, shared memory, traffic).
#include "attention_tiles.cuh"

static __shared__ __attribute__((aligned(16))) float shared[Sizes<false>::ALL];

NL_KERNEL(256) attention_forward_64_f32(AttentionArgs a) { attend<float, 4, 1, false>(a, shared); }
NL_KERNEL(256) attention_query_grad_64_f32(AttentionArgs a) { queryGradients<float, 4, 1, false>(a, shared); }
NL_KERNEL(256) attention_key_grad_64_f32(AttentionArgs a) { keyGradients<float, 4, 1, false>(a, shared); }
NL_KERNEL(256) cached_attention_tile_64_f32(AttentionArgs a) { attendCached<float, 4, 1>(a, shared); }
