using System.Runtime.InteropServices;
using NativeLora.Devices.Cpu;
using NativeLora.Graphs;

namespace NativeLora.Devices.Cuda;

/// <summary>
/// AdamW over the flat blocks of a parameter store: two launches for the norm and the factor of clipping, which stay on the device, and one
/// for all updates.
/// </summary>
internal sealed class CudaOptimizer : OptimizerKernel
{
    /// <summary>Launches of an update: squares, norm, AdamW.</summary>
    public const int LaunchesOfUpdate = 3;

    private const int TileElements = 16384;

    private readonly ParameterStore _parameters;
    private readonly CudaFunction _squares, _norm, _update;
    private readonly DeviceBuffer _results, _tiles;
    private readonly DeviceBuffer? _codes;
    private readonly byte[] _read = new byte[sizeof(double)];
    private readonly int _count;

    /// <param name="device">Where the parameters lie.</param>
    /// <param name="function">Finds a kernel by its name.</param>
    /// <param name="parameters">With gradients and moments.</param>
    public CudaOptimizer(Device device, Func<string, CudaFunction> function, ParameterStore parameters)
    {
        if (parameters.Gradients is null)
            throw new InvalidOperationException("the parameters have no gradients: they were made for inference");
        _parameters = parameters;
        var quantized = parameters.Optimizer == OptimizerKind.AdamW8Bit;
        (_squares, _norm, _update) = (function("gradient_squares"), function("gradient_norm"), function(quantized ? "adamw8bit" : "adamw"));
        // The norm, the factor of clipping, the sums of squares of the tiles.
        _results = device.Allocate(16 + sizeof(double) * Tiles(parameters.Elements));
        _results.Clear();
        if (quantized)
        {
            var tiles = QuantizedTiles(parameters);
            (_count, _tiles) = (tiles.Length, Upload<AdamW8Tile>(device, tiles));
            _codes = Upload<float>(device, [.. DynamicCode.Signed.Values, .. DynamicCode.Unsigned.Values, .. DynamicCode.Signed.Borders, .. DynamicCode.Unsigned.Borders]);
        }
        else
        {
            var tiles = FlatTiles(parameters);
            (_count, _tiles) = (tiles.Length, Upload<AdamWTile>(device, tiles));
        }
    }

    /// <inheritdoc/>
    public override void Update(int step, double learningRate, double maxNorm)
    {
        var tiles = (int)Tiles(_parameters.Elements);
        nint gradients = _parameters.Gradients!.Address, partial = _results.Address + 16, scale = _results.Address + 8;
        var squares = new SquaresArgs { Gradients = gradients, Partial = partial, Count = _parameters.Elements, Tiles = tiles };
        _squares.Launch(Math.Min(tiles, 65_535), 256, in squares);
        var norm = new NormArgs { Partial = partial, Norm = _results.Address, Scale = scale, Tiles = tiles, Limit = maxNorm > 0 ? (float)maxNorm : 0 };
        _norm.Launch(1, 256, in norm);
        var correction = 1 - Math.Pow(_parameters.Beta1, step);
        var factors = new AdamWFactors
        {
            Scale = scale,
            Rate = learningRate,
            Step = (float)(learningRate / correction),
            Weight1 = (float)(1 - _parameters.Beta1),
            Beta2 = (float)_parameters.Beta2,
            Weight2 = (float)(1 - _parameters.Beta2),
            Root = (float)Math.Sqrt(1 - Math.Pow(_parameters.Beta2, step)),
            Epsilon = (float)_parameters.Epsilon,
        };
        var grid = Math.Min(_count, 65_535);
        var (values, first, second) = (_parameters.Values.Address, _parameters.FirstMoments!.Address, _parameters.SecondMoments!.Address);
        if (_codes is { } codes)
        {
            var a = new AdamW8Args { Factors = factors, Values = values, Gradients = gradients, First = first, Second = second, Tiles = _tiles.Address, Codes = codes.Address, Count = _count };
            _update.Launch(grid, 256, in a);
        }
        else
        {
            var a = new AdamWArgs { Factors = factors, Values = values, Gradients = gradients, First = first, Second = second, Tiles = _tiles.Address, Count = _count };
            _update.Launch(grid, 256, in a);
        }
    }

    /// <inheritdoc/>
    public override double GradientNorm()
    {
        _results.Read(0, _read);
        return BitConverter.ToDouble(_read);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _results.Dispose();
        _tiles.Dispose();
        _codes?.Dispose();
        base.Dispose();
    }

    private static long Tiles(long elements) => (elements + TileElements - 1) / TileElements;

    private static DeviceBuffer Upload<T>(Device device, ReadOnlySpan<T> values) where T : unmanaged
    {
        var bytes = MemoryMarshal.AsBytes(values);
        var buffer = device.Allocate(bytes.Length);
        buffer.Write(0, bytes);
        return buffer;
    }

    /// <summary>Tiles over runs of tensors with the same decay.</summary>
    private static AdamWTile[] FlatTiles(ParameterStore parameters)
    {
        var tiles = new List<AdamWTile>();
        foreach (var name in parameters.Names)
        {
            var (start, count, decay) = (parameters.Place(name).Offset, parameters.Count(name), parameters.WeightDecay(name));
            while (count > 0)
            {
                // A tile that is not full goes on where the one before ends.
                var last = tiles.Count == 0 ? default : tiles[^1];
                if (tiles.Count == 0 || last.WeightDecay != decay || last.Count == TileElements)
                    tiles.Add(last = new AdamWTile { Start = start, WeightDecay = decay });
                var taken = (int)Math.Min(count, TileElements - last.Count);
                last.Count += taken;
                tiles[^1] = last;
                (start, count) = (start + taken, count - taken);
            }
        }
        return [.. tiles];
    }

    private static AdamW8Tile[] QuantizedTiles(ParameterStore parameters)
    {
        var tiles = new List<AdamW8Tile>();
        foreach (var name in parameters.Names)
        {
            var count = parameters.Count(name);
            for (long offset = 0; offset < count; offset += TileElements)
                tiles.Add(new AdamW8Tile
                {
                    Start = parameters.Place(name).Offset + offset,
                    Moments = parameters.MomentOffset(name),
                    Scales = parameters.Optimizer.IsQuantized(count) ? 4 * OptimizerKinds.Blocks(count) : 0,
                    Offset = offset,
                    WeightDecay = parameters.WeightDecay(name),
                    Count = (int)Math.Min(TileElements, count - offset),
                });
        }
        return [.. tiles];
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct SquaresArgs
    {
        public nint Gradients, Partial;
        public long Count;
        public int Tiles;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct NormArgs
    {
        public nint Partial, Norm, Scale;
        public int Tiles;
        public float Limit;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct AdamWFactors
    {
        public nint Scale;
        public double Rate;
        public float Step, Weight1, Beta2, Weight2, Root, Epsilon;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct AdamWTile
    {
        public long Start;
        public double WeightDecay;
        public int Count, Unused;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct AdamWArgs
    {
        public AdamWFactors Factors;
        public nint Values, Gradients, First, Second, Tiles;
        public int Count;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct AdamW8Tile
    {
        public long Start, Moments, Scales, Offset;
        public double WeightDecay;
        public int Count, Unused;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct AdamW8Args
    {
        public AdamWFactors Factors;
        public nint Values, Gradients, First, Second, Tiles, Codes;
        public int Count;
    }
}
