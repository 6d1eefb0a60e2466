using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace NativeLora.Devices.Cpu;

/// <summary>The integer operations of Philox on vectors of 64-bit lanes, for one vector width.</summary>
internal unsafe interface IPhiloxLanes<U> where U : struct
{
    /// <summary>64-bit lanes in a vector, at most 8.</summary>
    static abstract int Count { get; }
    static abstract U Load(ulong* from);
    static abstract U Broadcast(ulong value);
    static abstract U Add(U a, U b);
    static abstract U Xor(U a, U b);

    /// <summary>The upper 32 bits of every lane.</summary>
    static abstract U High(U a);

    /// <summary>The 64-bit products of the lower 32 bits of every lane.</summary>
    static abstract U Product(U a, U b);

    /// <summary>Stores scale where the lower 32 bits are at least the threshold, else 0, for the lanes of a and then of b.</summary>
    static abstract void StoreFactors(U a, U b, uint threshold, float scale, float* to);
}

/// <summary>Philox on vectors of 512 bits.</summary>
internal readonly unsafe struct PhiloxLanes512 : IPhiloxLanes<Vector512<ulong>>
{
    public static int Count => 8;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<ulong> Load(ulong* from) => Vector512.Load(from);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<ulong> Broadcast(ulong value) => Vector512.Create(value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<ulong> Add(Vector512<ulong> a, Vector512<ulong> b) => a + b;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<ulong> Xor(Vector512<ulong> a, Vector512<ulong> b) => a ^ b;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<ulong> High(Vector512<ulong> a) => a >>> 32;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<ulong> Product(Vector512<ulong> a, Vector512<ulong> b)
    {
        if (Avx512F.IsSupported)
            return Avx512F.Multiply(a.AsUInt32(), b.AsUInt32());
        var low = Vector512.Create((ulong)uint.MaxValue);
        return (a & low) * (b & low);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreFactors(Vector512<ulong> a, Vector512<ulong> b, uint threshold, float scale, float* to)
    {
        var keep = Vector512.GreaterThanOrEqual(Vector512.Narrow(a, b), Vector512.Create(threshold)).AsSingle();
        (keep & Vector512.Create(scale)).Store(to);
    }
}

/// <summary>Philox on vectors of 256 bits.</summary>
internal readonly unsafe struct PhiloxLanes256 : IPhiloxLanes<Vector256<ulong>>
{
    public static int Count => 4;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<ulong> Load(ulong* from) => Vector256.Load(from);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<ulong> Broadcast(ulong value) => Vector256.Create(value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<ulong> Add(Vector256<ulong> a, Vector256<ulong> b) => a + b;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<ulong> Xor(Vector256<ulong> a, Vector256<ulong> b) => a ^ b;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<ulong> High(Vector256<ulong> a) => a >>> 32;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<ulong> Product(Vector256<ulong> a, Vector256<ulong> b)
    {
        if (Avx2.IsSupported)
            return Avx2.Multiply(a.AsUInt32(), b.AsUInt32());
        var low = Vector256.Create((ulong)uint.MaxValue);
        return (a & low) * (b & low);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreFactors(Vector256<ulong> a, Vector256<ulong> b, uint threshold, float scale, float* to)
    {
        var keep = Vector256.GreaterThanOrEqual(Vector256.Narrow(a, b), Vector256.Create(threshold)).AsSingle();
        (keep & Vector256.Create(scale)).Store(to);
    }
}

/// <summary>Philox on vectors of 128 bits.</summary>
internal readonly unsafe struct PhiloxLanes128 : IPhiloxLanes<Vector128<ulong>>
{
    public static int Count => 2;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<ulong> Load(ulong* from) => Vector128.Load(from);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<ulong> Broadcast(ulong value) => Vector128.Create(value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<ulong> Add(Vector128<ulong> a, Vector128<ulong> b) => a + b;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<ulong> Xor(Vector128<ulong> a, Vector128<ulong> b) => a ^ b;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<ulong> High(Vector128<ulong> a) => a >>> 32;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector128<ulong> Product(Vector128<ulong> a, Vector128<ulong> b)
    {
        if (Sse2.IsSupported)
            return Sse2.Multiply(a.AsUInt32(), b.AsUInt32());
        var low = Vector128.Create((ulong)uint.MaxValue);
        return (a & low) * (b & low);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreFactors(Vector128<ulong> a, Vector128<ulong> b, uint threshold, float scale, float* to)
    {
        var keep = Vector128.GreaterThanOrEqual(Vector128.Narrow(a, b), Vector128.Create(threshold)).AsSingle();
        (keep & Vector128.Create(scale)).Store(to);
    }
}
