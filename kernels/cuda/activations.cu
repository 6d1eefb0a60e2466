// Activations, gated activations, the soft cap of logits, and their gradients. Four values a thread, grid-stride, no shared memory; traffic is
// one read of each input and one write of each output. Outputs may be any of the inputs. Which function it is, is decided once a launch.
#include "functions.cuh"
#include "rows.cuh"

// result = f(x), or f(x) · up
struct ActivationArgs
{
    const void* input;
    const void* up; // may be null
    void* result;
    int64 count;
    int32 kind;
};

// result = gradient · f'(x), or gradient · up · f'(x) and upGradient = gradient · f(x)
struct ActivationGradArgs
{
    const void* gradient;
    const void* input; // for tanh: its output
    const void* up;    // may be null
    void* result;
    void* upGradient; // null where up is
    int64 count;
    int32 kind;
};

struct SoftcapArgs
{
    const void* gradient; // null in a forward
    const void* input;    // the output in a backward
    void* result;
    int64 count;
    float cap;
};

template<typename E, typename F> NL_INLINE void forward(const ActivationArgs& a, F f)
{
    const E* x = (const E*)a.input;
    const E* ups = (const E*)a.up;
    E* y = (E*)a.result;
    bool whole = aligned(x, ups, y);
    overPacks(a.count, NL_EACH {
        Pack v = load(x + i, left, whole), up = Pack{{1.0f, 1.0f, 1.0f, 1.0f}};
        if (ups != nullptr)
            up = load(ups + i, left, whole);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            v[j] = f.value(v[j]) * up[j];
        store(y + i, v, left, whole);
    });
}

template<typename E> NL_INLINE void activation(const ActivationArgs& a)
{
    switch (a.kind)
    {
        case GELU: forward<E>(a, GeluErf{}); break;
        case GELU_TANH: forward<E>(a, GeluTanh{}); break;
        case TANH: forward<E>(a, Tangent{}); break;
        case RELU: forward<E>(a, Relu{}); break;
        default: forward<E>(a, Sigmoid{a.kind == SILU ? 1.0f : 1.702f}); break;
    }
}

template<typename E, typename F> NL_INLINE void backward(const ActivationGradArgs& a, F f)
{
    const E* dys = (const E*)a.gradient;
    const E* xs = (const E*)a.input;
    const E* ups = (const E*)a.up;
    E* dxs = (E*)a.result;
    E* dups = (E*)a.upGradient;
    bool whole = aligned(dys, xs, ups, dxs, dups);
    overPacks(a.count, NL_EACH {
        Pack d = load(dys + i, left, whole), x = load(xs + i, left, whole), up = Pack{{1.0f, 1.0f, 1.0f, 1.0f}};
        if (ups != nullptr)
            up = load(ups + i, left, whole);
        Pack dx;
#pragma unroll
        for (int j = 0; j < PACK; j++)
        {
            dx[j] = d[j] * up[j] * f.derivative(x[j]);
            d[j] *= f.value(x[j]);
        }
        store(dxs + i, dx, left, whole);
        if (dups != nullptr)
            store(dups + i, d, left, whole);
    });
}

template<typename E> NL_INLINE void activationGrad(const ActivationGradArgs& a)
{
    switch (a.kind)
    {
        case GELU: backward<E>(a, GeluErf{}); break;
        case GELU_TANH: backward<E>(a, GeluTanh{}); break;
        case TANH: backward<E>(a, TangentOutput{}); break;
        case RELU: backward<E>(a, Relu{}); break;
        default: backward<E>(a, Sigmoid{a.kind == SILU ? 1.0f : 1.702f}); break;
    }
}

template<typename E> NL_INLINE void softcap(const SoftcapArgs& a)
{
    const E* x = (const E*)a.input;
    E* y = (E*)a.result;
    float cap = a.cap;
    bool whole = aligned(x, y);
    overPacks(a.count, NL_EACH {
        Pack v = load(x + i, left, whole);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            v[j] = cap * hyperbolicTangent(divideRounded(v[j], cap));
        store(y + i, v, left, whole);
    });
}

template<typename E> NL_INLINE void softcapGrad(const SoftcapArgs& a)
{
    const E* dys = (const E*)a.gradient;
    const E* ys = (const E*)a.input;
    E* dxs = (E*)a.result;
    float cap = a.cap;
    bool whole = aligned(dys, ys, dxs);
    overPacks(a.count, NL_EACH {
        Pack d = load(dys + i, left, whole), y = load(ys + i, left, whole);
#pragma unroll
        for (int j = 0; j < PACK; j++)
        {
            float t = divideRounded(y[j], cap);
            d[j] *= fma(-t, t, 1.0f);
        }
        store(dxs + i, d, left, whole);
    });
}

NL_KERNEL(256) activation_f32(ActivationArgs a) { activation<float>(a); }
NL_KERNEL(256) activation_bf16(ActivationArgs a) { activation<bf16>(a); }
NL_KERNEL(256) activation_grad_f32(ActivationGradArgs a) { activationGrad<float>(a); }
NL_KERNEL(256) activation_grad_bf16(ActivationGradArgs a) { activationGrad<bf16>(a); }
NL_KERNEL(256) softcap_f32(SoftcapArgs a) { softcap<float>(a); }
NL_KERNEL(256) softcap_bf16(SoftcapArgs a) { softcap<bf16>(a); }
NL_KERNEL(256) softcap_grad_f32(SoftcapArgs a) { softcapGrad<float>(a); }
NL_KERNEL(256) softcap_grad_bf16(SoftcapArgs a) { softcapGrad<bf16>(a); }
