using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace NativeLora.Devices.Cpu;

/// <summary>
/// Elementwise functions on vectors. exp(x) = 2^n exp(r) with n = round(x / ln 2) and r = x - n ln 2 (ln 2 in two parts, so that
/// r is exact), exp(r) a degree-6 polynomial: within 2 ulp, 0 below the underflow, +inf above the overflow, NaN for NaN.
/// </summary>
internal static class VectorMath
{
    // exp(-104) is below half of the least subnormal and exp(89) above the largest float.
    private const float Lowest = -104f;
    private const float Highest = 89f;
    private const float Log2E = 1.44269504088896341f;
    private const float Ln2High = 0.693359375f;
    private const float Ln2Low = -2.12194440e-4f;
    private const float C7 = 1.9875691500e-4f;
    private const float C6 = 1.3981999507e-3f;
    private const float C5 = 8.3334519073e-3f;
    private const float C4 = 4.1665795894e-2f;
    private const float C3 = 1.6666665459e-1f;
    private const float C2 = 5.0000001201e-1f;

    // tanh x = x + x³ (T3 + x² (T5 + …)) below 0.625.
    private const float T11 = -5.70498872745e-3f;
    private const float T9 = 2.06390887954e-2f;
    private const float T7 = -5.37397155531e-2f;
    private const float T5 = 1.33314422036e-1f;
    private const float T3 = -3.33332819422e-1f;

    /// <summary>Bits of the widest vectors that this machine runs well: 512, 256 or 128.</summary>
    public static int WidestBits => Vector512.IsHardwareAccelerated ? 512 : Vector256.IsHardwareAccelerated ? 256 : 128;

    /// <summary>exp of every lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Exp(Vector512<float> x)
    {
        // The order of the operands keeps a NaN: the native minimum and maximum return the second one then.
        x = Vector512.MinNative(Vector512.Create(Highest), Vector512.MaxNative(Vector512.Create(Lowest), x));
        Vector512<float> n;
        if (Avx512F.IsSupported)
            n = Avx512F.RoundScale(x * Vector512.Create(Log2E), 0);
        else
            n = Vector512.Round(x * Vector512.Create(Log2E));
        var r = Vector512.MultiplyAddEstimate(n, Vector512.Create(-Ln2High), x);
        r = Vector512.MultiplyAddEstimate(n, Vector512.Create(-Ln2Low), r);
        var p = Vector512.MultiplyAddEstimate(Vector512.Create(C7), r, Vector512.Create(C6));
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(C5));
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(C4));
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(C3));
        p = Vector512.MultiplyAddEstimate(p, r, Vector512.Create(C2));
        p = Vector512.MultiplyAddEstimate(p, r * r, r) + Vector512<float>.One;
        if (Avx512F.IsSupported)
            return Avx512F.Scale(p, n);
        // 2^n in two factors, as n may lie outside the range of an exponent.
        var whole = Vector512.ConvertToInt32Native(n);
        var half = whole >> 1;
        var bias = Vector512.Create(127);
        return p * ((half + bias) << 23).AsSingle() * ((whole - half + bias) << 23).AsSingle();
    }

    /// <summary>exp of every lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Exp(Vector256<float> x)
    {
        x = Vector256.MinNative(Vector256.Create(Highest), Vector256.MaxNative(Vector256.Create(Lowest), x));
        var n = Vector256.Round(x * Vector256.Create(Log2E));
        var r = Vector256.MultiplyAddEstimate(n, Vector256.Create(-Ln2High), x);
        r = Vector256.MultiplyAddEstimate(n, Vector256.Create(-Ln2Low), r);
        var p = Vector256.MultiplyAddEstimate(Vector256.Create(C7), r, Vector256.Create(C6));
        p = Vector256.MultiplyAddEstimate(p, r, Vector256.Create(C5));
        p = Vector256.MultiplyAddEstimate(p, r, Vector256.Create(C4));
        p = Vector256.MultiplyAddEstimate(p, r, Vector256.Create(C3));
        p = Vector256.MultiplyAddEstimate(p, r, Vector256.Create(C2));
        p = Vector256.MultiplyAddEstimate(p, r * r, r) + Vector256<float>.One;
        var whole = Vector256.ConvertToInt32Native(n);
        var half = whole >> 1;
        var bias = Vector256.Create(127);
        return p * ((half + bias) << 23).AsSingle() * ((whole - half + bias) << 23).AsSingle();
    }

    /// <summary>exp of every lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<float> Exp(Vector128<float> x)
    {
        x = Vector128.MinNative(Vector128.Create(Highest), Vector128.MaxNative(Vector128.Create(Lowest), x));
        var n = Vector128.Round(x * Vector128.Create(Log2E));
        var r = Vector128.MultiplyAddEstimate(n, Vector128.Create(-Ln2High), x);
        r = Vector128.MultiplyAddEstimate(n, Vector128.Create(-Ln2Low), r);
        var p = Vector128.MultiplyAddEstimate(Vector128.Create(C7), r, Vector128.Create(C6));
        p = Vector128.MultiplyAddEstimate(p, r, Vector128.Create(C5));
        p = Vector128.MultiplyAddEstimate(p, r, Vector128.Create(C4));
        p = Vector128.MultiplyAddEstimate(p, r, Vector128.Create(C3));
        p = Vector128.MultiplyAddEstimate(p, r, Vector128.Create(C2));
        p = Vector128.MultiplyAddEstimate(p, r * r, r) + Vector128<float>.One;
        var whole = Vector128.ConvertToInt32Native(n);
        var half = whole >> 1;
        var bias = Vector128.Create(127);
        return p * ((half + bias) << 23).AsSingle() * ((whole - half + bias) << 23).AsSingle();
    }

    /// <summary>tanh of every lane: a polynomial near zero, 1 - 2/(e^2|x| + 1) elsewhere.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Tanh(Vector512<float> x)
    {
        var magnitude = Vector512.Abs(x);
        var square = magnitude * magnitude;
        var p = Vector512.MultiplyAddEstimate(Vector512.Create(T11), square, Vector512.Create(T9));
        p = Vector512.MultiplyAddEstimate(p, square, Vector512.Create(T7));
        p = Vector512.MultiplyAddEstimate(p, square, Vector512.Create(T5));
        p = Vector512.MultiplyAddEstimate(p, square, Vector512.Create(T3));
        var near = Vector512.MultiplyAddEstimate(p * square, magnitude, magnitude);
        var far = Vector512<float>.One - Vector512.Create(2f) / (Exp(magnitude + magnitude) + Vector512<float>.One);
        var result = Vector512.ConditionalSelect(Vector512.LessThan(magnitude, Vector512.Create(0.625f)), near, far);
        return Vector512.CopySign(result, x);
    }

    /// <summary>tanh of every lane: a polynomial near zero, 1 - 2/(e^2|x| + 1) elsewhere.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Tanh(Vector256<float> x)
    {
        var magnitude = Vector256.Abs(x);
        var square = magnitude * magnitude;
        var p = Vector256.MultiplyAddEstimate(Vector256.Create(T11), square, Vector256.Create(T9));
        p = Vector256.MultiplyAddEstimate(p, square, Vector256.Create(T7));
        p = Vector256.MultiplyAddEstimate(p, square, Vector256.Create(T5));
        p = Vector256.MultiplyAddEstimate(p, square, Vector256.Create(T3));
        var near = Vector256.MultiplyAddEstimate(p * square, magnitude, magnitude);
        var far = Vector256<float>.One - Vector256.Create(2f) / (Exp(magnitude + magnitude) + Vector256<float>.One);
        var result = Vector256.ConditionalSelect(Vector256.LessThan(magnitude, Vector256.Create(0.625f)), near, far);
        return Vector256.CopySign(result, x);
    }

    /// <summary>tanh of every lane: a polynomial near zero, 1 - 2/(e^2|x| + 1) elsewhere.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<float> Tanh(Vector128<float> x)
    {
        var magnitude = Vector128.Abs(x);
        var square = magnitude * magnitude;
        var p = Vector128.MultiplyAddEstimate(Vector128.Create(T11), square, Vector128.Create(T9));
        p = Vector128.MultiplyAddEstimate(p, square, Vector128.Create(T7));
        p = Vector128.MultiplyAddEstimate(p, square, Vector128.Create(T5));
        p = Vector128.MultiplyAddEstimate(p, square, Vector128.Create(T3));
        var near = Vector128.MultiplyAddEstimate(p * square, magnitude, magnitude);
        var far = Vector128<float>.One - Vector128.Create(2f) / (Exp(magnitude + magnitude) + Vector128<float>.One);
        var result = Vector128.ConditionalSelect(Vector128.LessThan(magnitude, Vector128.Create(0.625f)), near, far);
        return Vector128.CopySign(result, x);
    }
}
