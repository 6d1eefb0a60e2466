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
}
