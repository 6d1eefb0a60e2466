using System.Text.Json;
using NativeLora.Checkpoints;
using NativeLora.Selection;

namespace NativeLora.Tests.Selection;

internal static class Fixtures
{
    public static FeatureMatrix Matrix(SafeTensorsFile file, string name)
    {
        var shape = file.Tensors[name].Shape;
        return new FeatureMatrix((int)shape[0], (int)shape[1], file.ReadFloat32(name));
    }

    /// <summary>layer.0 … layer.L of a features file.</summary>
    public static FeatureMatrix[] Layers(string path)
    {
        using var file = SafeTensorsFile.Open(path);
        return [.. Enumerable.Range(0, file.Tensors.Count).Select(l => Matrix(file, $"layer.{l}"))];
    }

    public static JsonElement Json(string path)
    {
        using var document = JsonDocument.Parse(File.ReadAllText(path));
        return document.RootElement.Clone();
    }

    public static double? Number(this JsonElement element, string name) => element.GetProperty(name).Nullable();

    public static double? Nullable(this JsonElement element) => element.ValueKind == JsonValueKind.Null ? null : element.GetDouble();

    public static double?[] Numbers(this JsonElement element, string name) =>
        [.. element.GetProperty(name).EnumerateArray().Select(e => e.Nullable())];

    public static int[] Integers(this JsonElement element, string name) =>
        [.. element.GetProperty(name).EnumerateArray().Select(e => e.GetInt32())];

    public static void Near(double? expected, double? actual, double tolerance)
    {
        if (expected is null || actual is null)
            Assert.Equal(expected, actual);
        else
            Assert.InRange(actual.Value, expected.Value - tolerance, expected.Value + tolerance);
    }

    public static void Near(IReadOnlyList<double?> expected, IReadOnlyList<double?> actual, double tolerance)
    {
        Assert.Equal(expected.Count, actual.Count);
        for (var i = 0; i < expected.Count; i++)
            Near(expected[i], actual[i], tolerance);
    }

    /// <summary>Standard normal features, the same for the same seed.</summary>
    public static FeatureMatrix Normal(int rows, int columns, int seed, Func<double, int, int, double>? shape = null)
    {
        var random = new Random(seed);
        var values = new float[rows * columns];
        for (var i = 0; i < values.Length; i++)
        {
            var normal = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
            values[i] = (float)(shape is null ? normal : shape(normal, i / columns, i % columns));
        }
        return new FeatureMatrix(rows, columns, values);
    }

    /// <summary>Every value changed by a function of value, row and column.</summary>
    public static FeatureMatrix Map(this FeatureMatrix x, Func<float, int, int, double> change)
    {
        var values = x.Values.ToArray();
        for (var i = 0; i < values.Length; i++)
            values[i] = (float)change(values[i], i / x.Columns, i % x.Columns);
        return new FeatureMatrix(x.Rows, x.Columns, values);
    }

    /// <summary>Features that change little from layer to layer, as a residual stream does.</summary>
    public static FeatureMatrix[] Stream(int layers, int rows, int columns, int seed)
    {
        var features = new FeatureMatrix[layers + 1];
        features[0] = Normal(rows, columns, seed);
        for (var l = 1; l <= layers; l++)
        {
            var update = Normal(rows, columns, seed + l);
            var size = 0.2 + 0.1 * (l * 7 % 5);
            features[l] = features[l - 1].Map((v, i, j) => v + size * update.Row(i)[j]);
        }
        return features;
    }
}
