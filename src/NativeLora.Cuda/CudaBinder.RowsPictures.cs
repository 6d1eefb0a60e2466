using System.Runtime.InteropServices;
using NativeLora.Graphs;
using NativeLora.Ops;
using NativeLora.Tensors;

namespace NativeLora.Devices.Cuda;

/// <summary>Pictures: patches, the class token, and features among tokens.</summary>
internal sealed partial class CudaBinder
{
    [StructLayout(LayoutKind.Sequential)]
    private struct UnfoldPatchesArgs
    {
        public nint Pixels, Result;
        public long Rows;
        public int Size, Patch, Lanes;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ClassTokenArgs
    {
        public nint Input, Token, Table, Result;
        public long Rows;
        public int RowsOfPicture, Columns, Lanes;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PictureSumArgs
    {
        public nint Gradient, Result;
        public long Rows;
        public int Pictures, RowsOfPicture, Columns, Lanes, Accumulate;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PictureRowsArgs
    {
        public nint Input, Result;
        public long Rows;
        public int RowsOfPicture, Skip, Columns, Lanes;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PlacePicturesArgs
    {
        public nint Input, Features, Places, Result;
        public long Rows;
        public int Columns, Lanes;
    }

    private Kernel? BindPictures(Node node, RowTensors at)
    {
        var (inputs, output) = (node.Inputs, node.Output);
        var columns = output.Shape.Columns;
        var lanes = RowLanes(columns);
        switch (node.Op)
        {
            case UnfoldPatchesOp op:
                {
                    var k = Function("unfold_patches");
                    var a = new UnfoldPatchesArgs { Pixels = at.F(inputs[0]), Result = at.F(output), Size = op.Size, Patch = op.Patch, Lanes = lanes };
                    return Do(output, (_, rows) =>
                    {
                        a.Rows = rows;
                        k.Launch(RowBlocks(rows, lanes), RowThreads, in a);
                    });
                }
            case ClassTokenOp:
                {
                    var k = Function("class_token");
                    var a = new ClassTokenArgs
                    {
                        Input = at.F(inputs[0]),
                        Token = at.F(inputs[1]),
                        Table = at.F(inputs[2]),
                        Result = at.F(output),
                        RowsOfPicture = output.Shape.FixedRows,
                        Columns = columns,
                        Lanes = lanes,
                    };
                    return Do(output, (_, rows) =>
                    {
                        a.Rows = rows;
                        k.Launch(RowBlocks(rows, lanes), RowThreads, in a);
                    });
                }
            case PictureSumOp op:
                {
                    var k = Function("picture_sum");
                    var a = new PictureSumArgs
                    {
                        Gradient = at.F(inputs[0]),
                        Result = at.F(output),
                        Rows = op.Rows,
                        RowsOfPicture = inputs[0]!.Shape.FixedRows,
                        Columns = columns,
                        Lanes = lanes,
                    };
                    return new Runs(s =>
                    {
                        a.Accumulate = op.Adds || (op.Parameter && s.AccumulateGradients) ? 1 : 0;
                        a.Pictures = s.Size.Pictures;
                        k.Launch(RowBlocks(a.Rows, lanes), RowThreads, in a);
                    });
                }
            case PictureRowsOp op:
                return BindPictureRows("picture_rows", op.Skip, inputs[0]!, inputs[0]!, output, at);
            case PictureRowsGradOp op:
                return BindPictureRows("picture_rows_grad", op.Skip, output, inputs[0]!, output, at);
            case PlacePicturesOp:
                return BindPlacePictures(
                    output, new PlacePicturesArgs { Input = at.T(inputs[0]), Features = at.F(inputs[1]), Places = at.I(inputs[2]), Result = at.T(output) }, at.Type);
            case OutsidePicturesOp:
                return BindPlacePictures(output, new PlacePicturesArgs { Input = at.T(inputs[0]), Places = at.I(inputs[1]), Result = at.T(output) }, at.Type);
            case TakePicturesOp:
                return BindTakePictures(output, new PlacePicturesArgs { Input = at.T(inputs[0]), Places = at.I(inputs[1]), Result = at.F(output) }, at.Type);
            default:
                return null;
        }
    }

    private Runs BindPictureRows(string kernel, int skip, Tensor whole, Tensor input, Tensor output, RowTensors at)
    {
        var k = Function(kernel);
        var columns = output.Shape.Columns;
        var a = new PictureRowsArgs
        {
            Input = at.F(input),
            Result = at.F(output),
            RowsOfPicture = whole.Shape.FixedRows,
            Skip = skip,
            Columns = columns,
            Lanes = RowLanes(columns),
        };
        return Do(output, (_, rows) =>
        {
            a.Rows = rows;
            k.Launch(RowBlocks(rows, a.Lanes), RowThreads, in a);
        });
    }

    private Runs BindPlacePictures(Tensor output, PlacePicturesArgs a, ElementType type)
    {
        var k = Function("place_pictures", type);
        a.Columns = output.Shape.Columns;
        a.Lanes = RowLanes(a.Columns);
        return Do(output, (_, rows) =>
        {
            a.Rows = rows;
            k.Launch(RowBlocks(rows, a.Lanes), RowThreads, in a);
        });
    }

    private Runs BindTakePictures(Tensor output, PlacePicturesArgs a, ElementType type)
    {
        var (k, clear) = (Function("take_pictures", type), Clearing(a.Result, ElementType.F32));
        a.Columns = output.Shape.Columns;
        a.Lanes = RowLanes(a.Columns);
        return new Runs(s =>
        {
            clear(output.Shape.Elements(s.Size));
            a.Rows = s.Size.Tokens;
            k.Launch(RowBlocks(a.Rows, a.Lanes), RowThreads, in a);
        });
    }
}
