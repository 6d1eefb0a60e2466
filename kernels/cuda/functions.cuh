// Functions of one element and their derivatives: the polynomials of the CPU (Devices/Cpu/LaneMath.cs, Activations.cs). NaN stays NaN.
#pragma once
#include "nl.cuh"

// Comparisons instead of min and max, which would lose a NaN.
NL_INLINE float atMost(float x, float bound) { return x > bound ? bound : x; }
NL_INLINE float within(float x, float bound) { return x > bound ? bound : x < -bound ? -bound : x; }
NL_INLINE float withSign(float magnitude, float sign) { return floatOf((bitsOf(magnitude) & 0x7fffffffu) | (bitsOf(sign) & 0x80000000u)); }

// A polynomial near zero, 1 - 2 / (e^2|x| + 1) elsewhere.
NL_INLINE float hyperbolicTangent(float x)
{
    float m = atMost(absolute(x), 10.0f), s = m * m;
    float p = fma(-5.70498872745e-3f, s, 2.06390887954e-2f);
    p = fma(p, s, -5.37397155531e-2f);
    p = fma(p, s, 1.33314422036e-1f);
    p = fma(p, s, -3.33332819422e-1f);
    float near = fma(p * s, m, m);
    float far = 1.0f - divideRounded(2.0f, exponential(m + m) + 1.0f);
    return withSign(m < 0.625f ? near : far, x);
}

NL_INLINE float errorFunction(float x)
{
    // erf is 1 in fp32 from 3.93 on; the bound keeps the polynomial finite.
    float t = atMost(absolute(x), 6.0f), s = t * t;
    float f = fma(-1.72853470e-5f, t, 3.83197126e-4f);
    float u = fma(-3.88396438e-3f, t, 2.42546219e-2f);
    f = fma(f, s, u);
    f = fma(f, t, -1.06777877e-1f);
    f = fma(f, t, -6.34846687e-1f);
    f = fma(f, t, -1.28717512e-1f);
    f = fma(f, t, -t);
    float far = 1.0f - exponential(f);
    float n = fma(-5.96761703e-4f, s, 4.99119423e-3f);
    n = fma(n, s, -2.67681349e-2f);
    n = fma(n, s, 1.12819925e-1f);
    n = fma(n, s, -3.76125336e-1f);
    n = fma(n, s, 1.28379166e-1f);
    float near = fma(n, t, t);
    return withSign(t > 0.927734375f ? far : near, x);
}

// The numbers are those of ActivationKind.
enum ActivationKind : int32 { GELU, GELU_TANH, TANH, RELU, SILU, QUICK_GELU };

struct GeluErf
{
    NL_INLINE float cdf(float x) const { return fma(errorFunction(x * 0.707106781187f), 0.5f, 0.5f); }
    NL_INLINE float value(float x) const { return x * cdf(x); }
    NL_INLINE float derivative(float x) const
    {
        // Beyond 20 the density is 0; the bound avoids 0 · infinity.
        float t = within(x, 20.0f);
        return fma(t, exponential(t * t * -0.5f) * 0.398942280401f, cdf(x));
    }
};

struct GeluTanh
{
    static constexpr float SLOPE = 0.797884560803f, CUBIC = 0.044715f;
    NL_INLINE float inner(float x, float square) const { return hyperbolicTangent(x * fma(square, CUBIC * SLOPE, SLOPE)); }
    NL_INLINE float value(float x) const { return x * fma(inner(x, x * x), 0.5f, 0.5f); }
    NL_INLINE float derivative(float x) const
    {
        float t = within(x, 20.0f), square = t * t;
        float tanh = inner(t, square);
        float steep = fma(-tanh, tanh, 1.0f) * fma(square, 3.0f * CUBIC * SLOPE, SLOPE);
        return fma(t * 0.5f, steep, fma(tanh, 0.5f, 0.5f));
    }
};

struct Tangent
{
    NL_INLINE float value(float x) const { return hyperbolicTangent(x); }
};

// tanh from its output, of which the derivative comes.
struct TangentOutput
{
    NL_INLINE float value(float y) const { return y; }
    NL_INLINE float derivative(float y) const { return fma(-y, y, 1.0f); }
};

struct Relu
{
    NL_INLINE float value(float x) const { return x < 0.0f ? 0.0f : x; }
    NL_INLINE float derivative(float x) const { return x > 0.0f ? 1.0f : 0.0f; }
};

// x · sigmoid(slope · x): SiLU with slope 1.
struct Sigmoid
{
    float slope;
    NL_INLINE float value(float x) const { return divideRounded(x, 1.0f + exponential(-slope * x)); }
    NL_INLINE float derivative(float x) const
    {
        // Beyond 100 the sigmoid is 0 or 1 to the last bit.
        float t = within(slope * x, 100.0f);
        float s = divideRounded(1.0f, 1.0f + exponential(-t));
        return s * fma(t, 1.0f - s, 1.0f);
    }
};
