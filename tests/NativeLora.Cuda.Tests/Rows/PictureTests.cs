using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Cuda.Tests.Rows;

[Collection(Cuda.Collection)]
public class PictureTests
{
    private static BatchSize Size(int pictures, int tokens = 1) => new(tokens, 1, (long)tokens * tokens) { Pictures = pictures };

    [CudaFact]
    public void UnfoldsPatches()
    {
        foreach (var (size, patch) in new[] { (1, 1), (4, 2), (14, 7), (15, 7), (28, 14), (33, 4), (9, 3) })
            foreach (var pictures in new[] { 0, 1, 3 })
            {
                var patches = size / patch * (size / patch);
                new OpCase(new UnfoldPatchesOp(size, patch), Size(pictures))
                    .In(OpCase.Pictures("pixels", 1, 3 * size * size, category: TensorCategory.Input), OpCase.Random(pictures * 3 * size * size, 1))
                    .Out(OpCase.Pictures("patches", patches, 3 * patch * patch))
                    .Compare(0, 0);
            }
    }

    [CudaFact]
    public void RowsOfPictures()
    {
        foreach (var (rows, columns) in new[] { (1, 1), (2, 5), (4, 8), (9, 33), (16, 64), (2, 1030) })
            foreach (var pictures in new[] { 0, 1, 3 })
            {
                new OpCase(new ClassTokenOp(), Size(pictures))
                    .In(OpCase.Pictures("x", rows, columns), OpCase.Random(pictures * rows * columns, 1))
                    .In(OpCase.Parameter("class", 1, columns), OpCase.Random(columns, 2))
                    .In(OpCase.Fixed("table", rows + 1, columns), OpCase.Random((rows + 1) * columns, 3))
                    .Out(OpCase.Pictures("y", rows + 1, columns))
                    .Compare(0, 0);
                new OpCase(new PictureRowsOp(1), Size(pictures))
                    .In(OpCase.Pictures("x", rows + 1, columns), OpCase.Random(pictures * (rows + 1) * columns, 4))
                    .Out(OpCase.Pictures("y", rows, columns))
                    .Compare(0, 0);
                new OpCase(new PictureRowsGradOp(1), Size(pictures))
                    .In(OpCase.Pictures("dy", rows, columns), OpCase.Random(pictures * rows * columns, 5))
                    .Out(OpCase.Pictures("dx", rows + 1, columns))
                    .Compare(0, 0);
            }
    }

    [CudaFact]
    public void SumsOverPictures()
    {
        foreach (var (rows, columns) in new[] { (1, 1), (2, 5), (4, 8), (9, 33), (16, 64), (2, 1030) })
            foreach (var pictures in new[] { 0, 1, 3, 5 })
                foreach (var (summed, adds, parameter, accumulate) in new[] { (1, false, true, false), (1, false, true, true), (rows, true, false, false), (rows, false, false, true) })
                {
                    var starts = adds || (parameter && accumulate);
                    new OpCase(new PictureSumOp(summed, parameter, adds), Size(pictures)) { Step = { AccumulateGradients = accumulate } }
                        .In(OpCase.Pictures("dy", rows, columns), OpCase.Random(pictures * rows * columns, 1))
                        .Out(OpCase.Gradient("sum", summed, columns), starts ? OpCase.Random(summed * columns, 2) : null)
                        .Compare(1e-6, 1e-6);
                }
    }

    [CudaFact]
    public void FeaturesAmongTokens()
    {
        foreach (var type in RowCases.Types)
            foreach (var columns in new[] { 1, 5, 8, 33, 64, 1030 })
                foreach (var inPlace in new[] { false, true })
                {
                    int[] places = [-1, 4, 0, -1, 1, 5, -1, 3, -1];
                    var size = Size(2, places.Length);
                    Tensor x = OpCase.Tokens("x", columns, type), y = OpCase.Tokens("y", columns, type), rows = OpCase.Ints("rows", Shape.PerToken(1));
                    var placed = new OpCase(new PlacePicturesOp(), size)
                        .In(x, OpCase.Random(places.Length * columns, 1))
                        .In(OpCase.Pictures("features", 3, columns), OpCase.Random(6 * columns, 2))
                        .In(rows, places);
                    (inPlace ? placed.OutOver(y, x) : placed.Out(y)).Compare(0, 0);
                    var outside = new OpCase(new OutsidePicturesOp(), size).In(x, OpCase.Random(places.Length * columns, 3)).In(rows, places);
                    (inPlace ? outside.OutOver(y, x) : outside.Out(y)).Compare(0, 0);
                    new OpCase(new TakePicturesOp(), size)
                        .In(x, OpCase.Random(places.Length * columns, 4))
                        .In(rows, places)
                        .Out(OpCase.Pictures("dfeatures", 3, columns))
                        .Compare(0, 0);
                }
    }
}
