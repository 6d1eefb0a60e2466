namespace NativeLora.Data.Tokenizers;

/// <summary>Opens the tokenizer that lies in a model's folder.</summary>
public static class TokenizerLoader
{
    /// <summary>
    /// Opens the folder's tokenizer: from <c>tokenizer.json</c>, else <c>tokenizer.model</c> (SentencePiece), else
    /// <c>spm.model</c> (DeBERTa's SentencePiece), else <c>vocab.json</c> with <c>merges.txt</c> (byte-level BPE of RoBERTa or
    /// GPT-2), else <c>vocab.txt</c> (BERT's WordPiece).
    /// The roles of special tokens come from <c>tokenizer_config.json</c> and <c>special_tokens_map.json</c>.
    /// </summary>
    /// <param name="folder">The model's folder.</param>
    /// <exception cref="InputException">There is no such file, or it is damaged or of a kind that is not supported.</exception>
    public static ITokenizer FromFolder(string folder)
    {
        if (!Directory.Exists(folder))
            throw new InputException($"{folder}: no such folder; give the folder that holds the model's files");
        var names = SpecialNames.FromFolder(folder);
        Pipeline parts;
        if (Has("tokenizer.json"))
            parts = TokenizerJson.Load(Path.Combine(folder, "tokenizer.json"));
        else if (Has("tokenizer.model"))
            parts = SentencePieceTokenizers.Llama(Path.Combine(folder, "tokenizer.model"), controlInText: true);
        else if (Has("spm.model"))
            parts = SentencePieceTokenizers.Deberta(folder);
        else if (Has("vocab.json") && Has("merges.txt"))
            parts = VocabularyFiles.ByteLevelBpe(folder, names);
        else if (Has("vocab.txt"))
            parts = VocabularyFiles.WordPiece(folder, names);
        else
        {
            throw new InputException($"{folder}: no tokenizer: looked for tokenizer.json, tokenizer.model, spm.model, vocab.json with "
                + "merges.txt, and vocab.txt; copy the tokenizer's files into the model's folder");
        }
        return new PipelineTokenizer(parts, names);

        bool Has(string file) => File.Exists(Path.Combine(folder, file));
    }
}
