using System.Text;
using NativeLora.Checkpoints;

namespace NativeLora.Tests.Checkpoints;

/// <summary>Small valid files with bytes changed, cut or put in: they open or are refused, and nothing else happens.</summary>
public class FuzzTests
{
    [Fact]
    public void SafeTensors() => Fuzz(MakeSafeTensors(), 3000, path =>
    {
        using var file = SafeTensorsFile.Open(path);
        foreach (var tensor in file.Tensors.Keys)
            file.ReadFloat32(tensor);
    });

    [Fact]
    public void Gguf() => Fuzz(MakeGguf(), 4000, path =>
    {
        using var checkpoint = Checkpoint.Open(path);
        foreach (var tensor in checkpoint.Tensors.Keys)
            checkpoint.ReadFloat32(tensor);
    });

    [Fact]
    public void Configs() => Fuzz(Encoding.UTF8.GetBytes("""
        {"model_type":"llama","architectures":["L"],"hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":16,
         "intermediate_size":12,"id2label":{"0":"a","1":"b"},"rope_theta":1e4,"torch_dtype":"float32",
         "rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":32}}
        """), 3000, path =>
    {
        var config = HfConfig.Open(path);
        config.ValidateTransformer();
        _ = (config.Rope(), config.NumLabels, config.Architectures, config.Dtype);
    });

    private static void Fuzz(byte[] valid, int times, Action<string> open)
    {
        using var folder = new TemporaryFolder();
        open(folder.Write("valid.gguf", valid));
        var random = new Random(7);
        var refused = 0;
        // Of this thread: other tests run beside.
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < times; i++)
        {
            // Always a new file: file systems flush one that is cut and written again, and that takes most of the time.
            var path = folder.Write($"{i}.gguf", Mutate(valid, random));
            try
            {
                open(path);
            }
            catch (InputException e)
            {
                refused++;
                Assert.DoesNotContain('\n', e.Message);
                Assert.InRange(e.Message.Length, 1, 1200 + path.Length);
            }
            File.Delete(path);
        }
        Assert.InRange(refused, times / 4, times);
        // A claimed size must not be believed: about 100 KiB for each little file is plenty.
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, times * 300_000L);
    }

    private static byte[] Mutate(byte[] valid, Random random)
    {
        var bytes = valid.ToList();
        for (var changes = random.Next(1, 4); changes > 0; changes--)
        {
            var at = random.Next(bytes.Count);
            switch (random.Next(6))
            {
                case 0:
                    bytes[at] = (byte)random.Next(256);
                    break;
                case 1:
                    bytes[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 2:
                    bytes[at] = "0123456789\"{}[],:-e\\"u8[random.Next(20)];
                    break;
                case 3:
                    for (var i = at; i < Math.Min(at + 8, bytes.Count); i++)
                        bytes[i] = random.Next(2) == 0 ? (byte)0xFF : (byte)0x7F;
                    break;
                case 4:
                    bytes.RemoveRange(at, random.Next(1, Math.Min(bytes.Count - at, 16) + 1));
                    if (bytes.Count == 0)
                        bytes.Add(0);
                    break;
                default:
                    bytes.InsertRange(at, bytes.GetRange(at, Math.Min(16, bytes.Count - at)));
                    break;
            }
        }
        return [.. bytes];
    }

    private static byte[] MakeSafeTensors()
    {
        using var folder = new TemporaryFolder();
        SafeTensorsWriter.Write(folder.File("a"),
        [
            TensorToWrite.From("a.weight", [2, 3], new float[6]),
            TensorToWrite.From("b", [], new float[1]),
            TensorToWrite.From("c", NativeLora.Tensors.ElementType.I64, [1], new byte[8]),
        ]);
        return File.ReadAllBytes(folder.File("a"));
    }

    private static byte[] MakeGguf() => GgufBuilder.Llama()
        .Strings("tokenizer.ggml.tokens", "a", "b", "c")
        .UInt32("general.alignment", 32)
        .Floats("token_embd.weight", [3, 8], new float[24])
        .Floats("blk.0.attn_q.weight", [8, 8], new float[64])
        .Tensor("blk.0.attn_k.weight", 2, [4, 32], new byte[4 * 18])
        .Tensor("blk.0.ffn_up.weight", 8, [2, 32], new byte[2 * 34])
        .Build();
}
