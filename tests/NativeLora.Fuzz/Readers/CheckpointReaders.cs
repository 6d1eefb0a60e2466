using System.Text;
using System.Text.Json.Nodes;
using NativeLora.Checkpoints;
using NativeLora.Data;
using NativeLora.Generation;
using NativeLora.Hosting;
using NativeLora.Models;
using NativeLora.Tensors;
using NativeLora.Tests.Checkpoints;
using NativeLora.Tests.Models;

namespace NativeLora.Fuzz;

/// <summary>Readers of a model's folder, the tokenizer aside.</summary>
internal static class CheckpointReaders
{
    private static readonly byte[] Config = Utf8(TinyModel.Config("llama").Json);

    public static IEnumerable<FuzzReader> All =>
    [
        FuzzReader.Of("safetensors", "model.safetensors", () => [FuzzCase.Of("model.safetensors", SafeTensors(0)), FuzzCase.Of("model.safetensors", SafeTensors(1))], folder =>
        {
            using var file = SafeTensorsFile.Open(Path.Combine(folder, "model.safetensors"));
            foreach (var (name, tensor) in file.Tensors)
            {
                _ = file.ReadFloat32(name).Length;
                if (tensor.Type is ElementType.I64 or ElementType.I32)
                    _ = file.ReadInt64(name).Length;
            }
        }) with { Words = ["F32", "BF16", "I64", "F64", "BOOL", "dtype", "shape", "data_offsets", "__metadata__", "[0,8]", "[18446744073709551615]", "[4294967296,4294967296]"] },
        FuzzReader.Of("shards", "model.safetensors.index.json and its shards", Shards, folder =>
        {
            using var checkpoint = Checkpoint.Open(folder);
            foreach (var name in checkpoint.Tensors.Keys)
                _ = checkpoint.ReadFloat32(name).Length;
        }) with { Words = ["weight_map", "\"../outside.safetensors\"", "\"/dev/zero.safetensors\"", "\".safetensors\"", "\"..safetensors\"", "\"model.safetensors.index.json\""] },
        FuzzReader.Of("gguf", "a .gguf file", () => [FuzzCase.Of("model.gguf", Gguf()), FuzzCase.Of("model.gguf", SmallGguf())], folder =>
        {
            using var checkpoint = Checkpoint.Open(Path.Combine(folder, "model.gguf"));
            foreach (var name in checkpoint.Tensors.Keys)
                _ = checkpoint.ReadFloat32(name).Length;
            _ = ModelRegistry.Create(checkpoint.Config).Layers;
        }),
        FuzzReader.Of("config", "config.json of every family", () => [.. Families.Select(f => FuzzCase.Of("config.json", TinyModel.Config(f).Json))], folder =>
        {
            var config = HfConfig.Open(folder);
            var model = ModelRegistry.Create(config);
            _ = (config.Dtype, config.NumLabels, config.Architectures.Count, model.MaxPositions, model.TypeVocabulary, model.Pictures);
            _ = PretrainedModel.Modules(model, model.OwnHead).Modules.Count;
        }) with
        {
            // Ten thousand layers are let pass, and their modules listed.
            Allocates = 256 << 20,
            Words = [.. TinyModel.Kinds.Concat(TinyModel.Decoders).Select(k => $"\"{k}\""), "\"rope_scaling\"", "{\"rope_type\":\"yarn\",\"factor\":4}", "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":32}",
                "{\"rope_type\":\"longrope\",\"short_factor\":[1],\"long_factor\":[2]}", "\"gelu_new\"", "\"layer_types\"", "\"sliding_attention\"", "\"head_dim\"", "\"num_labels\"", "10001", "\"float64\""],
        },
        FuzzReader.Of("end-tokens", "generation_config.json", () => [FuzzCase.Of("generation_config.json", "{\"eos_token_id\": [2, 7], \"pad_token_id\": 0, \"temperature\": 0.7}"), FuzzCase.Of("generation_config.json", "{\"eos_token_id\": 2}")],
            folder => _ = EndTokens.OfFolder(folder)?.Count) with { Words = ["\"eos_token_id\""] },
        FuzzReader.Of("sentence-files", "modules.json, 1_Pooling/config.json, sentence_bert_config.json", SentenceFolder, folder => _ = SentenceFiles.Read(folder)) with
        {
            Words = ["\"pooling_mode_cls_token\"", "\"pooling_mode_mean_tokens\"", "\"pooling_mode_max_tokens\"", "\"sentence_transformers.models.Normalize\"", "\"max_seq_length\""],
        },
    ];

    private static IEnumerable<string> Families => TinyModel.Kinds.Concat(TinyModel.Decoders);

    public static byte[] Utf8(string text) => Encoding.UTF8.GetBytes(text);

    /// <summary>What a writer writes.</summary>
    public static byte[] Written(Action<string> write)
    {
        var path = Path.Combine(Directory.CreateTempSubdirectory("nativelora-fuzz-").FullName, "file");
        try
        {
            write(path);
            return File.ReadAllBytes(path);
        }
        finally
        {
            Directory.Delete(Path.GetDirectoryName(path)!, recursive: true);
        }
    }

    private static byte[] SafeTensors(int kind) => Written(path => SafeTensorsWriter.Write(path, kind == 0
        ?
        [
            TensorToWrite.From("a.weight", [2, 3], new float[] { 1, 2, 3, 4, 5, 6 }),
            TensorToWrite.From("b", [], new float[] { 1 }),
            TensorToWrite.From("c", ElementType.I64, [1], new byte[8]),
            TensorToWrite.From("d", ElementType.BF16, [2, 2], new byte[8]),
            TensorToWrite.From("e", ElementType.F16, [3], new byte[6]),
        ]
        : [TensorToWrite.From("x", ElementType.F64, [2], new byte[16]), TensorToWrite.From("y", ElementType.Bool, [4], new byte[4]), TensorToWrite.From("z", ElementType.U8, [0, 3], Array.Empty<byte>())]));

    private static IReadOnlyList<FuzzCase> Shards()
    {
        var first = Written(path => SafeTensorsWriter.Write(path, [TensorToWrite.From("a", [2], new float[] { 1, 2 })]));
        var second = Written(path => SafeTensorsWriter.Write(path, [TensorToWrite.From("b", [1], new float[] { 3 }), TensorToWrite.From("c", [1], new float[] { 4 })]));
        const string Index = """
            {"metadata": {"total_size": 16}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}}
            """;
        return [FuzzCase.Of("model.safetensors.index.json", Index).Beside(("config.json", Config), ("model-00001-of-00002.safetensors", first), ("model-00002-of-00002.safetensors", second))];
    }

    private static byte[] Gguf() => GgufBuilder.Llama()
        .Strings("tokenizer.ggml.tokens", "a", "b", "c")
        .UInt32("general.alignment", 32)
        .UInt32("tokenizer.ggml.eos_token_id", 2)
        .Text("llama.rope.scaling.type", "linear")
        .Float32("llama.rope.scaling.factor", 2)
        .Value("some.flag", 7, to => to.Write((byte)1))
        .Value("some.array", 9, to =>
        {
            to.Write(9u);
            to.Write(1UL);
            to.Write(5u);
            to.Write(2UL);
            to.Write(7);
            to.Write(8);
        })
        .Floats("token_embd.weight", [3, 8], new float[24])
        .Floats("blk.0.attn_q.weight", [8, 8], new float[64])
        .Tensor("blk.0.attn_k.weight", 2, [4, 32], new byte[4 * 18])
        .Tensor("blk.0.ffn_up.weight", 8, [2, 32], new byte[2 * 34])
        .Build();

    private static byte[] SmallGguf() => GgufBuilder.Llama()
        .Floats("token_embd.weight", [3, 8], new float[24])
        .Tensor("blk.0.ffn_down.weight", 12, [1, 256], new byte[144])
        .Tensor("output_norm.weight", 1, [8], new byte[16])
        .Build();

    private static IReadOnlyList<FuzzCase> SentenceFolder()
    {
        var pooling = Utf8("{\"word_embedding_dimension\": 384, \"pooling_mode_cls_token\": false, \"pooling_mode_mean_tokens\": true, \"pooling_mode_max_tokens\": false}");
        var modules = Utf8("[{\"idx\": 0, \"name\": \"0\", \"path\": \"\", \"type\": \"sentence_transformers.models.Transformer\"}, {\"idx\": 1, \"path\": \"1_Pooling\", \"type\": \"sentence_transformers.models.Pooling\"}, {\"idx\": 2, \"path\": \"2_Normalize\", \"type\": \"sentence_transformers.models.Normalize\"}]");
        return [FuzzCase.Of(("1_Pooling/config.json", pooling), ("modules.json", modules), ("sentence_bert_config.json", Utf8("{\"max_seq_length\": 256, \"do_lower_case\": false}")))];
    }
}
