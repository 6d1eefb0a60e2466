using System.Text.Json;
using System.Text.Json.Serialization;
using NativeLora.Checkpoints;
using NativeLora.Data;

namespace NativeLora.Selection;

/// <summary>
/// CKA of the features at every depth against those at every other: 0 is after the embeddings, l after layer l - 1. Entry [l, l + 1] is the
/// similarity that layers are ranked by. The content of <c>similarity.json</c>.
/// </summary>
public sealed record SimilarityMatrix
{
    private const int MostDepths = 4096;

    /// <summary>Samples that were compared: all of the selection's, or a random 1024 of more.</summary>
    public required int Samples { get; init; }

    /// <summary>Linear CKA (biased), a row a depth; null where undefined.</summary>
    public required IReadOnlyList<IReadOnlyList<double?>> Cka { get; init; }

    /// <summary>Debiased CKA, a row a depth; null where undefined.</summary>
    public required IReadOnlyList<IReadOnlyList<double?>> CkaDebiased { get; init; }

    /// <summary>Compares all with all. Holds a Gram matrix of the samples for each depth.</summary>
    /// <param name="features">Features of L + 1 depths over the same samples.</param>
    /// <param name="seed">Seed of the draw where there are more than 1024 samples.</param>
    /// <exception cref="InputException">Fewer than two feature matrices, or different samples.</exception>
    /// <exception cref="RunException">A value is not finite.</exception>
    public static SimilarityMatrix Of(IReadOnlyList<FeatureMatrix> features, ulong seed = 0)
    {
        LayerSimilarities.Require(features);
        var subset = Bootstrap.Subset(features[0].Rows, new SplitMix64(seed));
        var (depths, samples) = (features.Count, subset?.Length ?? features[0].Rows);
        var grams = new GramMatrix[depths];
        LayerSimilarities.SideBySide(Environment.ProcessorCount, 0, depths, (_, l) =>
        {
            var taken = subset is null ? features[l] : features[l].Take(subset);
            taken.RequireFinite($"features of layer {l}");
            grams[l] = GramMatrix.Of(taken, new PanelProduct());
        });
        var biased = Table();
        var debiased = Table();
        LayerSimilarities.SideBySide(Environment.ProcessorCount, 0, depths, (_, l) =>
        {
            for (var m = l; m < depths; m++)
            {
                var (x, y) = (grams[l], grams[m]);
                biased[l][m] = biased[m][l] = Hsic.Biased(l == m ? x.Terms.Inner : x.Inner(y), x.Terms, y.Terms);
                debiased[l][m] = debiased[m][l] = Hsic.Debiased(samples, l == m ? x.Terms.Unbiased : x.Unbiased(y), x.Terms, y.Terms);
            }
        });
        return new SimilarityMatrix { Samples = samples, Cka = biased, CkaDebiased = debiased };

        double?[][] Table() => [.. Enumerable.Range(0, depths).Select(_ => new double?[depths])];
    }

    /// <summary>Writes it as JSON, to a temporary file first.</summary>
    /// <exception cref="RunException">It cannot be written.</exception>
    public void Save(string path) => AtomicFile.WriteAllText(path, JsonSerializer.Serialize(this, MatrixJson.Default.SimilarityMatrix) + "\n");

    /// <summary>Reads what <see cref="Save"/> wrote.</summary>
    /// <exception cref="InputException">It cannot be read, or is no such matrix.</exception>
    public static SimilarityMatrix Load(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        try
        {
            var matrix = JsonSerializer.Deserialize(File.ReadAllBytes(path), MatrixJson.Default.SimilarityMatrix) ?? throw new JsonException("it holds null");
            var depths = matrix.Cka.Count;
            if (depths is < 2 or > MostDepths || matrix.Samples < 1 || !Fits(matrix.Cka) || !Fits(matrix.CkaDebiased))
                throw new JsonException("its tables are not square, or not of one size");
            return matrix;

            bool Fits(IReadOnlyList<IReadOnlyList<double?>> table) => table.Count == depths && table.All(row => row?.Count == depths);
        }
        catch (Exception e) when (e is JsonException or IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw new InputException($"{path}: not the similarities of a selection ({e.Message.ReplaceLineEndings(" ")}): select layers anew", e);
        }
    }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, RespectNullableAnnotations = true, AllowDuplicateProperties = false)]
[JsonSerializable(typeof(SimilarityMatrix))]
internal sealed partial class MatrixJson : JsonSerializerContext;
